"""Short ways to bring a circuit into a state."""

from __future__ import annotations

import contextlib
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from fusewire.breaker import CircuitBreaker, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fusewire.testing import FakeClock

T = TypeVar("T")


def open_circuit(breaker: CircuitBreaker) -> None:
    """Let calls fail until the circuit is open."""
    for _ in range(breaker.settings.failure_threshold or 0):
        breaker.acquire().failure()


def half_open_circuit(breaker: CircuitBreaker, clock: FakeClock) -> None:
    """Open the circuit and let its recovery time pass."""
    open_circuit(breaker)
    clock.advance(breaker.settings.recovery_timeout)


def restarted(breaker: CircuitBreaker, clock: FakeClock) -> CircuitBreaker:
    """Make another breaker that goes on where `breaker` is."""
    text = breaker.snapshot().to_json()
    other = CircuitBreaker(breaker.name, settings=breaker.settings, clock=clock)
    other.restore(Snapshot.from_json(text))
    return other


def interrupt(breaker: CircuitBreaker, act: Callable[[], T]) -> T:
    """Act as a signal handler or a finalizer does that interrupts a change, in its thread."""
    results: list[T] = []
    errors: list[BaseException] = []

    def change(_now: float) -> None:
        try:
            results.append(act())
        except BaseException as error:  # noqa: BLE001 - the interrupted code does not see it
            errors.append(error)

    breaker._change_under_lock(get_ident(), breaker._clock(), change)
    if errors:
        raise errors[0]
    return results[0]


class BrokenOffError(BaseException):
    """An exception that breaks a change off, as a ``KeyboardInterrupt`` would."""


def break_off(breaker: CircuitBreaker, half: Callable[[], object] = lambda: None) -> None:
    """Begin a change, do `half` of it, and break it off."""

    def change(_now: float) -> None:
        half()
        raise BrokenOffError

    with pytest.raises(BrokenOffError):
        breaker._change_under_lock(get_ident(), breaker._clock(), change)


class _HeldLock:
    """A lock that another thread holds: waiting for it fails instead of lasting forever."""

    def __enter__(self) -> None:
        raise AssertionError("waited for the lock")

    def __exit__(self, *_: object) -> None: ...


@contextlib.contextmanager
def locked(breaker: CircuitBreaker) -> Iterator[None]:
    """Hold the circuit's lock in the block, in which nobody may wait for it."""
    with breaker._lock, held_lock(breaker):
        yield


@contextlib.contextmanager
def held_lock(breaker: CircuitBreaker) -> Iterator[None]:
    """Let nobody wait for the circuit's lock in the block, where this thread holds it."""
    lock = breaker._lock
    held: Any = _HeldLock()
    breaker._lock = held
    try:
        yield
    finally:
        breaker._lock = lock
