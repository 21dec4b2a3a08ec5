"""Short ways to bring a circuit into a state."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.breaker import CircuitBreaker
    from fusewire.testing import FakeClock


def open_circuit(breaker: CircuitBreaker) -> None:
    """Let calls fail until the circuit is open."""
    for _ in range(breaker.settings.failure_threshold or 0):
        breaker.acquire().failure()


def half_open_circuit(breaker: CircuitBreaker, clock: FakeClock) -> None:
    """Open the circuit and let its recovery time pass."""
    open_circuit(breaker)
    clock.advance(breaker.settings.recovery_timeout)


class _HeldLock:
    """A lock that another thread holds: who would wait for it fails instead of waiting for ever."""

    def acquire(self, *, blocking: bool = True) -> bool:
        assert not blocking, "waited for the lock"
        return False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None: ...


@contextlib.contextmanager
def locked(breaker: CircuitBreaker) -> Iterator[None]:
    """Hold the circuit's lock in the block, in which nobody may wait for it."""
    lock = breaker._lock
    held: Any = _HeldLock()
    with lock:
        breaker._lock = held
        try:
            yield
        finally:
            breaker._lock = lock
