"""What a closed circuit does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker import Admission, BreakerSettings, CircuitBreaker, CircuitState, Outcome
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def test_a_new_circuit_is_closed_and_admits(breaker: CircuitBreaker) -> None:
    assert breaker.state is CircuitState.CLOSED
    assert breaker.can_execute()
    assert breaker.look() == Admission(admitted=True, state=CircuitState.CLOSED, retry_after=0.0)
    assert not breaker.acquire().probe


def test_it_opens_at_the_threshold_and_not_before(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED
    breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN


def test_a_success_starts_the_count_again(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()
    breaker.acquire().success()
    breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED


def test_a_released_permit_leaves_the_count_as_it_was(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()
    breaker.acquire().release()
    breaker.acquire().settle(Outcome.IGNORED)
    assert breaker.state is CircuitState.CLOSED
    breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN


def test_only_the_first_settlement_counts(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()
    permit = breaker.acquire()
    permit.success()
    permit.failure()
    permit.failure()
    assert breaker.state is CircuitState.CLOSED


def test_without_a_threshold_failures_in_a_row_do_not_open_it(clock: FakeClock) -> None:
    settings = BreakerSettings(
        failure_threshold=None, window_calls=10_000, minimum_calls=2000, failure_rate_threshold=1.0
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    for _ in range(1000):
        breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED


def test_after_closing_again_it_needs_the_whole_threshold(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    breaker.acquire().success()
    breaker.acquire().success()
    assert breaker.state is CircuitState.CLOSED
    breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED
    breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN
