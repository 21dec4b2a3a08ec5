"""What an open circuit does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import CircuitBreaker, CircuitOpenError, CircuitState, Look, Outcome
from tests.support.circuits import open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def test_it_rejects_and_says_when_to_come_back(breaker: CircuitBreaker, clock: FakeClock) -> None:
    open_circuit(breaker)
    clock.advance(4)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert caught.value.name == "payments"
    assert caught.value.state == "open"
    assert caught.value.retry_after == 6.0
    assert caught.value.reason == "2 failures in a row, threshold 2"


def test_a_look_tells_the_same_and_changes_nothing(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    open_circuit(breaker)
    clock.advance(9)
    assert breaker.look() == Look(admitted=False, state=CircuitState.OPEN, retry_after=1.0)
    assert not breaker.can_execute()
    clock.advance(1)
    for _ in range(10):
        assert breaker.look() == Look(admitted=True, state=CircuitState.HALF_OPEN, retry_after=0.0)
    assert breaker.can_execute()
    assert breaker.acquire().probe


def test_rejections_do_not_lengthen_the_open_time(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    open_circuit(breaker)
    for _ in range(9):
        clock.advance(1)
        with pytest.raises(CircuitOpenError):
            breaker.acquire()
    clock.advance(1)
    assert breaker.acquire().probe


def test_a_hint_of_the_dependency_sets_the_open_time(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.acquire().failure(retry_after=99)
    breaker.acquire().failure(retry_after=3)
    assert breaker.look().retry_after == 3.0
    clock.advance(3)
    assert breaker.acquire().probe


@pytest.mark.parametrize("hint", [None, 0.0, -1.0, math.inf, math.nan])
def test_a_hint_that_makes_no_sense_is_no_hint(breaker: CircuitBreaker, hint: float | None) -> None:
    breaker.acquire().failure()
    breaker.acquire().failure(retry_after=hint)
    assert breaker.look().retry_after == 10.0


def test_settling_with_an_outcome_takes_a_hint_too(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()
    breaker.acquire().settle(Outcome.FAILURE, retry_after=3)
    assert breaker.look().retry_after == 3.0


def test_a_hint_may_be_short(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()
    breaker.acquire().failure(retry_after=0.5)
    assert breaker.look().retry_after == 0.5


def test_a_rejection_does_not_wait_for_the_lock(breaker: CircuitBreaker) -> None:
    open_circuit(breaker)
    with breaker._lock, pytest.raises(CircuitOpenError):
        breaker.acquire()
    assert breaker.snapshot().counters.rejected == 1
