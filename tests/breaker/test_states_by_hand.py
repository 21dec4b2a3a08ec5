"""States that a person sets, and how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerSettings,
    CircuitBreaker,
    CircuitState,
    Event,
)
from tests.support.circuits import half_open_circuit, open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


@pytest.mark.parametrize("how", ["force_open", "disable", "metrics_only"])
def test_automatic_ends_a_state_set_by_hand_and_starts_again(
    breaker: CircuitBreaker, how: str
) -> None:
    breaker.acquire().failure()
    getattr(breaker, how)()
    breaker.automatic()
    assert breaker.state is CircuitState.CLOSED
    breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED


def test_automatic_leaves_other_states_alone(breaker: CircuitBreaker) -> None:
    open_circuit(breaker)
    breaker.automatic()
    assert breaker.state is CircuitState.OPEN


def test_reset_starts_again_and_keeps_the_totals(clock: FakeClock) -> None:
    settings = BreakerSettings(
        failure_threshold=2, window_calls=10, failure_rate_threshold=1.0, recovery_timeout=10
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    open_circuit(breaker)
    breaker.reset()
    snapshot = breaker.snapshot()
    assert snapshot.state is CircuitState.CLOSED
    assert (snapshot.calls, snapshot.consecutive_failures) == (0, 0)
    assert (snapshot.counters.failed, snapshot.counters.opened) == (2, 1)


def test_reset_forgets_how_the_open_time_has_grown(clock: FakeClock) -> None:
    settings = BreakerSettings(failure_threshold=1, recovery_timeout=10, recovery_timeout_growth=2)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    half_open_circuit(breaker, clock)
    breaker.acquire().failure()
    assert breaker.look().retry_after == 20
    breaker.reset()
    breaker.acquire().failure()
    assert breaker.look().retry_after == 10


def test_results_from_before_are_late(breaker: CircuitBreaker) -> None:
    permits = [breaker.acquire() for _ in range(4)]
    breaker.reset()
    for permit in permits:
        permit.failure()
    assert breaker.state is CircuitState.CLOSED
    assert breaker.snapshot().counters.late == 4


def test_a_change_that_changes_nothing_is_not_reported(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append)
    breaker.reset()
    breaker.automatic()
    assert heard == []
    breaker.force_open()
    breaker.force_open()
    assert len(heard) == 1
