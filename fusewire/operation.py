"""The unit of work that a handler is doing: its identity, and what its guarded calls saw.

An :class:`Operation` is the thread between the rooms. A consumer opens one around a handler; a
guarded call made inside asks for it, to send an idempotency key that stays the same when the work
is replayed, and to note that the call failed. Neither room has to know the other.

This module lies beneath the rooms: all of them may import it, and it imports none.
"""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

IDEMPOTENCY_KEY = "idempotency-key"
"""Metadata key that carries an operation id to the server (the name of the IETF's
``draft-ietf-httpapi-idempotency-key-header``, in the lower case that gRPC asks for)."""


class Operation:
    """One unit of work, and what the guarded calls made for it have seen.

    Safe to use from the threads and tasks that a handler starts.

    Attributes:
        id: the operation id, the same on every attempt.
        failed: names of the breakers whose calls were made in this attempt and failed, in order,
            each once.
    """

    __slots__ = ("_lock", "_ordinals", "failed", "id")

    def __init__(self, operation_id: str) -> None:
        self.id = operation_id
        self.failed: list[str] = []
        self._ordinals: dict[str, int] = {}
        self._lock = threading.Lock()

    def next_key(self, method: str) -> str:
        """Make the idempotency key of the next call to `method`: ``<id>/<method>/<ordinal>``.

        A handler that makes the same calls in the same order gets the same keys on every attempt.
        """
        with self._lock:
            ordinal = self._ordinals.get(method, 0) + 1
            self._ordinals[method] = ordinal
        return f"{self.id}/{method.lstrip('/')}/{ordinal}"

    def note_failure(self, breaker: str) -> None:
        """Record that a call guarded by `breaker` was made and failed. It may be said twice."""
        with self._lock:
            if breaker not in self.failed:
                self.failed.append(breaker)


_current: ContextVar[Operation | None] = ContextVar("fusewire_operation", default=None)
_fallbacks: ContextVar[bool] = ContextVar("fusewire_fallbacks", default=True)


def current_operation() -> Operation | None:
    """Return the operation that this context works on, if any."""
    return _current.get()


class operation:  # noqa: N801 - used as a function is
    """Work on an operation id within the block: guarded calls carry its identity.

    A consumer enters one for each message, which would cost a generator several times as much.
    """

    __slots__ = ("_entered", "_token")

    def __init__(self, operation_id: str) -> None:
        self._entered = Operation(operation_id)

    def __enter__(self) -> Operation:
        self._token = _current.set(self._entered)
        return self._entered

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


@contextlib.contextmanager
def without_fallbacks() -> Iterator[None]:
    """Suppress every fallback within the block: callers see the rejection or the failure itself.

    Replays run inside it, so that a fallback's reply never settles parked work.
    """
    token = _fallbacks.set(False)
    try:
        yield
    finally:
        _fallbacks.reset(token)


def fallbacks_allowed() -> bool:
    """Tell whether fallbacks may be used in this context."""
    return _fallbacks.get()
