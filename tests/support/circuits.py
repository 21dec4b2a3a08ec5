"""Short ways to bring a circuit into a state."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
