"""The unit of work that a handler is doing: its identity, and what its guarded calls saw.

An :class:`Operation` is the thread between the rooms. A consumer opens one around a handler; a
guarded call made inside asks for it, to send an idempotency key that stays the same when the work
is replayed, and to note that the call failed. Neither room has to know the other.

This module lies beneath the rooms: all of them may import it, and it imports none.
"""

from __future__ import annotations

import contextlib
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

IDEMPOTENCY_KEY = "idempotency-key"
"""Metadata key that carries an operation id to the server (the name of the IETF's
``draft-ietf-httpapi-idempotency-key-header-07``, in the lower case that gRPC asks for)."""

_NOTES_KEPT = 64


@dataclass(frozen=True, slots=True)
class CallNote:
    """How one guarded call ended, other than OK.

    Attributes:
        breaker: the breaker's name.
        outcome: what the end counted as: ``"failure"``, ``"ignored"``, or ``"success"`` where the
            status was the dependency's answer, as UNAUTHENTICATED or NOT_FOUND are.
        status: the name of the gRPC status, ``"UNAVAILABLE"`` for example; None if the call was not
            a gRPC call.
        retry_after: the seconds after which the server asked to be called again, None if it did
            not.
        condition: why no single call is to blame: ``"unauthenticated"``, ``"permission_denied"``,
            ``"local"`` (the cause lies in this process) or ``"refused"`` (the server is full, or
            said when to come back); None if the call itself may be to blame.
    """

    breaker: str
    outcome: str
    status: str | None = None
    retry_after: float | None = None
    condition: str | None = None


class Operation:
    """One unit of work, and what the guarded calls made for it have seen.

    It may be used from the threads and tasks that a handler starts. It has no lock: every change is
    one step of a built-in container, so a finalizer or a signal handler may make one at any time.

    Attributes:
        id: the operation id, the same on every attempt.
        ended: whether the block that worked on it was left. The keys of its calls and the
            suppression of fallbacks end with it.
    """

    __slots__ = ("_failed", "_notes", "_ordinals", "_rejected", "ended", "id")

    def __init__(self, operation_id: str) -> None:
        self.id = operation_id
        self.ended = False
        self._failed: dict[str, None] = {}
        self._rejected: dict[str, None] = {}
        self._notes: deque[CallNote] = deque(maxlen=_NOTES_KEPT)
        self._ordinals: dict[str, int] = {}

    @property
    def failed(self) -> list[str]:
        """Names of the breakers whose calls were made in this attempt and failed, each once."""
        return list(self._failed)

    @property
    def rejected(self) -> list[str]:
        """Names of the breakers that refused a call of this attempt, each once.

        A refusal that a fallback answered is not among them: the handler did not see it.
        """
        return list(self._rejected)

    @property
    def notes(self) -> tuple[CallNote, ...]:
        """How the calls of this attempt ended that did not end OK, in order; the last 64."""
        return tuple(self._notes.copy())

    def next_key(self, method: str) -> str:
        """Make the idempotency key of the next call to `method`: ``<id>/<method>/<ordinal>``.

        A handler that makes the same calls in the same order gets the same keys on every attempt.
        """
        ordinal = self._ordinals.get(method, 0) + 1
        self._ordinals[method] = ordinal
        return f"{self.id}/{method.lstrip('/')}/{ordinal}"

    def note(self, note: CallNote) -> None:
        """Record how a call ended that did not end OK."""
        self._notes.append(note)
        if note.outcome == "failure":
            self._failed.setdefault(note.breaker)

    def note_failure(self, breaker: str, *, retry_after: float | None = None) -> None:
        """Record that a call guarded by `breaker` was made and failed.

        Args:
            breaker: the breaker's name.
            retry_after: the seconds after which the dependency asked to be called again.
        """
        condition = None if retry_after is None else "refused"
        self.note(CallNote(breaker, "failure", None, retry_after, condition))

    def note_rejection(self, breaker: str) -> None:
        """Record that `breaker` refused a call: nothing was sent."""
        self._rejected.setdefault(breaker)

    def note_answered(self, breaker: str) -> None:
        """Record that a fallback answered the call that `breaker` refused."""
        self._rejected.pop(breaker, None)


_current: ContextVar[Operation | None] = ContextVar("fusewire_operation", default=None)
_suppressed: ContextVar[_Suppression | None] = ContextVar("fusewire_suppressed", default=None)


def current_operation() -> Operation | None:
    """Return the operation that this context works on, None if it works on none or that has ended.

    A task or thread that outlives the block keeps its context, but works on nothing any more.
    """
    operation = _current.get()
    return None if operation is None or operation.ended else operation


def entered_operation() -> Operation | None:
    """Return the operation that this context was made for, also if it has ended."""
    return _current.get()


class operation:  # noqa: N801 - used as a function is
    """Work on an operation id within the block: guarded calls carry its identity.

    Leaving the block ends the operation, also for tasks and threads that were started within.
    A consumer enters one for each message, which would cost a generator several times as much.
    """

    __slots__ = ("_entered", "_token")

    def __init__(self, operation_id: str) -> None:
        self._entered = Operation(operation_id)

    def __enter__(self) -> Operation:
        self._token = _current.set(self._entered)
        return self._entered

    def __exit__(self, *_: object) -> None:
        self._entered.ended = True
        _current.reset(self._token)


@contextlib.contextmanager
def noted_by_caller() -> Iterator[None]:
    """Keep breakers from noting failures within the block: the caller notes the call itself.

    The interceptors know more of a call than its breaker does, and note it once.
    """
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


class _Suppression:
    """Fallbacks are suppressed, until the operation ends in which that was asked for."""

    __slots__ = ("operation",)

    def __init__(self) -> None:
        self.operation = _current.get()

    def holds(self) -> bool:
        return self.operation is None or not self.operation.ended


@contextlib.contextmanager
def without_fallbacks() -> Iterator[None]:
    """Suppress every fallback within the block: callers see the rejection or the failure itself.

    Replays run inside it, so that a fallback's reply never settles parked work. Within an operation
    it ends with the operation, also for tasks and threads that were started in the block.
    """
    token = _suppressed.set(_Suppression())
    try:
        yield
    finally:
        _suppressed.reset(token)


def fallbacks_allowed() -> bool:
    """Tell whether fallbacks may be used in this context."""
    suppression = _suppressed.get()
    return suppression is None or not suppression.holds()
