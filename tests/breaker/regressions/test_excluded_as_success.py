"""An exception that does not count is no success (it is to pybreaker, aiobreaker, purgatory)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fusewire.breaker import CircuitBreaker, CircuitState

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def raise_value_error() -> None:
    raise ValueError


def test_it_neither_resets_failures_nor_closes_a_half_open_circuit(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", 2, 10, 1, expected_exceptions=(OSError,), clock=clock)
    breaker.acquire().failure()
    with contextlib.suppress(ValueError):
        breaker.call(raise_value_error)
    breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN
    clock.advance(10)
    with contextlib.suppress(ValueError):
        breaker.call(raise_value_error)
    assert breaker.state is CircuitState.HALF_OPEN
