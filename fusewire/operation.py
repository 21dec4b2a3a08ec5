"""The unit of work that a handler does: its identity, and how its guarded calls ended.

A consumer opens an :class:`Operation` around a handler. A guarded call inside asks for it, to send
an idempotency key that stays the same on a replay, and to record how it ended.

This module lies beneath the rooms: all of them may import it, and it imports none.
"""

from __future__ import annotations

import contextlib
import itertools
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from fusewire._validation import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The rest is for the rooms.
__all__ = [
    "FIRST_SENT_METADATA",
    "IDEMPOTENCY_KEY",
    "REPLAY_METADATA",
    "CallNote",
    "Operation",
    "TimedCall",
    "current_operation",
    "operation",
    "without_fallbacks",
]

IDEMPOTENCY_KEY = "idempotency-key"
"""Metadata key that carries an operation id to the server (the name of the IETF's
``draft-ietf-httpapi-idempotency-key-header-07``, in the lower case that gRPC asks for)."""

FIRST_SENT_METADATA = "fusewire-first-sent-ms"
"""Metadata key of calls that may have been sent before: when that was first, in milliseconds since
1970. A server refuses a call that is older than its memory of keys."""

REPLAY_METADATA = "fusewire-replay"
"""Metadata key of the calls of a replay; its value is ``"1"``. Busy servers can shed them first."""

NOTES_KEPT = 64
"""Notes, and durations, that an operation keeps: the last ones."""


@dataclass(frozen=True, slots=True)
class CallNote:
    """How one guarded call ended, other than OK.

    Attributes:
        breaker: the breaker's name.
        outcome: what the end counted as: ``"failure"``, ``"ignored"``, or ``"success"`` where the
            status was the dependency's answer, as UNAUTHENTICATED or NOT_FOUND are.
        status: the name of the gRPC status, such as ``"UNAVAILABLE"``; None of another call.
        retry_after: the seconds after which the server asked to be called again, else None.
        condition: why no single call is to blame: ``"unauthenticated"``, ``"permission_denied"``,
            ``"local"`` (the cause lies in this process) or ``"refused"`` (the server is full, or
            said when to come back); None if the call itself may be to blame.
    """

    breaker: str
    outcome: str
    status: str | None = None
    retry_after: float | None = None
    condition: str | None = None


class TimedCall(NamedTuple):
    """How many `seconds` a call took that the dependency answered; `method` may be empty."""

    breaker: str
    method: str
    seconds: float


class KeyEnd(Enum):
    """How the call that held a key ended, which decides what happens to the key."""

    ANSWERED = "answered"
    """Its caller saw a reply or a final status: no other call gets the key."""
    IN_DOUBT = "in_doubt"
    """It may have had an effect. An equal call takes the key again, so that it has only one."""
    NO_EFFECT = "no_effect"
    """It was not sent, or the server did nothing. An equal call takes the key again."""


class KeyClaim:
    """An idempotency key, held by one call.

    Attributes:
        key: what is sent.
        look: called to find out whether the call is over; it ends the claim if it is. A caller may
            see the end of a future before the future's callbacks are called.
        if_declined: the end of the call, which is over, if its fallback does not answer.
    """

    __slots__ = ("_numbers", "_operation", "if_declined", "key", "look", "number")

    def __init__(self, operation: Operation, key: str, numbers: _Numbers) -> None:
        self._operation = operation
        self._numbers = numbers
        self.look: Callable[[], object] | None = None
        self.if_declined: KeyEnd | None = None
        self.number = numbers.take()
        self.key = key if self.number == 1 else f"{key}/{self.number}"
        numbers.pending[self] = None

    def end(self, how: KeyEnd) -> None:
        """Record how the call ended. Only the first end counts; it may come from any thread."""
        self.look = None
        if self._numbers.pending.pop(self, self) is self:
            return
        self._operation.end_key(self.key, how)
        if how is not KeyEnd.ANSWERED:
            self._numbers.free[self.number] = None


class _Numbers:
    """Which of the calls with equal requests have which number.

    Attributes:
        pending: claims of calls that are not over.
        free: numbers that calls have given back; each below all that were never taken.
    """

    __slots__ = ("_unused", "free", "pending")

    def __init__(self) -> None:
        self.pending: dict[KeyClaim, None] = {}
        self.free: dict[int, None] = {}
        self._unused = itertools.count(1)

    def take(self) -> int:
        """Take the lowest number that no other call holds."""
        for other in list(self.pending):
            if (look := other.look) is not None:
                look()
        for number in sorted(self.free):
            if self.free.pop(number, 0) is None:
                return number
        return next(self._unused)


class Operation:
    """One unit of work, and how the guarded calls ended that were made for it.

    It may be used from the threads and tasks that a handler starts. It has no lock: every change is
    one step of a built-in container, so a finalizer or a signal handler may make one at any time.

    Args:
        operation_id: the operation id.
        keys_by_ordinal: whether its calls follow the former scheme of keys, see :meth:`next_key`.
        replay: whether the work is a replay. Its calls say so to the server, in
            :data:`REPLAY_METADATA`, and are not counted as live traffic.

    Attributes:
        id: the operation id, the same on every attempt.
        keys_by_ordinal: as given.
        replay: as given.
        first_sent_ms: when the call that its message stores was first sent, by Unix; else None.
        ended: whether the block that worked on it was left. The keys of its calls and the
            suppression of fallbacks end with it.
    """

    __slots__ = (
        "_doubtful",
        "_failed",
        "_notes",
        "_numbers",
        "_ordinals",
        "_rejected",
        "_sent",
        "_succeeded",
        "_timed",
        "ended",
        "first_sent_ms",
        "id",
        "keys_by_ordinal",
        "replay",
    )

    def __init__(
        self, operation_id: str, *, keys_by_ordinal: bool = False, replay: bool = False
    ) -> None:
        given: object = operation_id
        if not isinstance(given, str) or not given:
            # Units of work that share an id share their keys: a server would do only one of them.
            raise invalid("operation_id", "a non-empty string", operation_id)
        self.id = operation_id
        self.keys_by_ordinal = keys_by_ordinal
        self.replay = replay
        self.first_sent_ms: int | None = None
        self.ended = False
        self._numbers: dict[str, _Numbers] = {}
        self._sent: dict[str, None] = {}
        self._doubtful: dict[str, None] = {}
        self._failed: dict[str, None] = {}
        self._rejected: dict[str, None] = {}
        self._succeeded: dict[str, None] = {}
        # Lists, which cost a third of a deque: most operations note nothing.
        self._notes: list[CallNote] = []
        self._timed: list[TimedCall] = []
        self._ordinals: dict[str, int] = {}

    @property
    def failed(self) -> list[str]:
        """Names of the breakers whose calls were made in this attempt and failed, each once."""
        return list(self._failed)

    @property
    def rejected(self) -> list[str]:
        """Names of the breakers whose rejections this attempt's handler saw, each once."""
        return list(self._rejected)

    @property
    def succeeded(self) -> list[str]:
        """Names of the breakers of whose gRPC calls one ended OK in this attempt, each once."""
        return list(self._succeeded)

    @property
    def notes(self) -> tuple[CallNote, ...]:
        """How the calls of this attempt ended that did not end OK, in order; the last 64."""
        return tuple(self._notes)[-NOTES_KEPT:]

    @property
    def timed(self) -> tuple[TimedCall, ...]:
        """How long the measured calls of this attempt took that were answered; the last 64."""
        return tuple(self._timed)[-NOTES_KEPT:]

    @property
    def doubtful_keys(self) -> tuple[str, ...]:
        """Keys of calls that may have had an effect, and of calls that are not over."""
        pending = [
            claim.key for each in list(self._numbers.values()) for claim in list(each.pending)
        ]
        return tuple(dict.fromkeys([*list(self._doubtful), *pending]))

    def has_sent(self, key: str) -> bool:
        """Return whether a call of this attempt went out with `key`."""
        return key in self._sent

    def claim_key(self, key: str) -> KeyClaim:
        """Hold `key`, or else the first of ``<key>/2``, ``<key>/3``, … that no call holds."""
        numbers = self._numbers.get(key) or self._numbers.setdefault(key, _Numbers())
        return KeyClaim(self, key, numbers)

    def end_key(self, key: str, how: KeyEnd) -> None:
        """Record how the call that held `key` ended; its claim says so."""
        if how is KeyEnd.ANSWERED:
            self._sent[key] = None
            self._doubtful.pop(key, None)
        elif how is KeyEnd.IN_DOUBT:
            self._sent[key] = self._doubtful[key] = None

    def next_key(self, method: str) -> str:
        """Make a key ``<id>/<method>/<ordinal of the call>``, for messages that began with such."""
        ordinal = self._ordinals.get(method, 0) + 1
        self._ordinals[method] = ordinal
        return f"{self.id}/{method.lstrip('/')}/{ordinal}"

    def note(self, note: CallNote) -> None:
        """Record how a call ended that did not end OK."""
        _keep(self._notes, note)
        if note.outcome == "failure":
            self._failed.setdefault(note.breaker)

    def note_duration(self, breaker: str, method: str, seconds: float) -> None:
        """Record how long a call took that the dependency answered."""
        _keep(self._timed, TimedCall(breaker, method, seconds))

    def note_failure(self, breaker: str, *, retry_after: float | None = None) -> None:
        """Record that a guarded call failed; asked for again in `retry_after` seconds, if so."""
        condition = None if retry_after is None else "refused"
        self.note(CallNote(breaker, "failure", None, retry_after, condition))

    def note_success(self, breaker: str) -> None:
        """Record that a call guarded by `breaker` ended OK."""
        self._succeeded.setdefault(breaker)

    def note_rejection(self, breaker: str) -> None:
        """Record that `breaker` rejected a call: nothing was sent."""
        self._rejected.setdefault(breaker)

    def note_answered(self, breaker: str) -> None:
        """Record that a fallback answered the call that `breaker` rejected."""
        self._rejected.pop(breaker, None)


_Note = TypeVar("_Note")


def _keep(notes: list[_Note], note: _Note) -> None:
    notes.append(note)
    del notes[:-NOTES_KEPT]  # there may be more between the two steps, which does no harm


_current: ContextVar[Operation | None] = ContextVar("fusewire_operation", default=None)
_suppressed: ContextVar[_Suppression | None] = ContextVar("fusewire_suppressed", default=None)

entered_operation: Callable[[], Operation | None] = _current.get
"""Return the operation that this context was made for, also if it has ended."""


def current_operation() -> Operation | None:
    """Return the operation of this context, None if there is none or it has ended.

    A task or thread that outlives the block keeps its context, but no longer has an operation.
    """
    operation = _current.get()
    return None if operation is None or operation.ended else operation


class operation:  # noqa: N801 - used as a function is
    """Work on an operation id within the block: guarded calls carry its identity.

    Leaving the block ends the operation, also for tasks and threads that were started within.
    A consumer enters one for each message, which would cost a generator several times as much.

    Args:
        operation_id: the operation id.
        keys_by_ordinal: whether the keys of its calls follow the former scheme, see
            :meth:`Operation.next_key`.
        replay: whether the work is a replay, see :class:`Operation`.

    Raises:
        SettingsError: `operation_id` is no string, or is empty.
    """

    __slots__ = ("_entered", "_token")

    def __init__(
        self, operation_id: str, *, keys_by_ordinal: bool = False, replay: bool = False
    ) -> None:
        self._entered = Operation(operation_id, keys_by_ordinal=keys_by_ordinal, replay=replay)

    def __enter__(self) -> Operation:
        self._token = _current.set(self._entered)
        return self._entered

    def __exit__(self, *_: object) -> None:
        self._entered.ended = True
        _current.reset(self._token)


@contextlib.contextmanager
def noted_by_caller() -> Iterator[None]:
    """Keep breakers from recording failures within the block: the caller records the call itself.

    The interceptors know more about a call than its breaker does, and record it once.
    """
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


class _Suppression:
    """Fallbacks are suppressed until the operation of this context ends."""

    __slots__ = ("operation",)

    def __init__(self) -> None:
        self.operation = _current.get()

    def holds(self) -> bool:
        return self.operation is None or not self.operation.ended


class without_fallbacks(contextlib.ContextDecorator):  # noqa: N801 - used as a function is
    """Suppress every fallback within the block: callers see the rejection or the failure itself.

    Replays run inside it, so that a fallback's reply never settles parked work. Within an operation
    it ends with the operation, also for tasks and threads that were started in the block.
    """

    def __enter__(self) -> None:
        self._token = _suppressed.set(_Suppression())

    def __exit__(self, *_: object) -> None:
        _suppressed.reset(self._token)

    def _recreate_cm(self) -> without_fallbacks:
        return without_fallbacks()  # for each call of a function that it decorates


def fallbacks_allowed() -> bool:
    """Return whether fallbacks may be used in this context."""
    suppression = _suppressed.get()
    return suppression is None or not suppression.holds()
