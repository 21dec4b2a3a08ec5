"""A clock and a breaker that every test of the breaker may ask for."""

from __future__ import annotations

import pytest

from fusewire.breaker import CircuitBreaker
from fusewire.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    """Opens after 2 failures in a row, for 10 s; 2 probes close it."""
    return CircuitBreaker("payments", 2, 10.0, 2, clock=clock)
