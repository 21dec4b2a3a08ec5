"""What a borrowed permit is worth, and when there is none to be had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerSettings, CircuitBreaker, CircuitOpenError, CircuitState
from fusewire.operation import operation
from tests.support.circuits import half_open_circuit
from tests.support.ways_through import (
    BORROWERS,
    answer,
    by_block,
    by_call,
    by_decorator,
    by_generator,
    each_lender,
    fail,
    give_up,
    totals,
    two,
)

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


@each_lender
def test_the_time_of_a_borrowed_permit_is_that_of_its_call(clock: FakeClock, lend: Any) -> None:
    settings = BreakerSettings(
        window_calls=4, slow_call_duration=1.0, slow_call_rate_threshold=0.5, minimum_calls=4
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)

    def work(seconds: float) -> None:
        clock.advance(5.0)
        breaker.call(clock.advance, seconds)
        clock.advance(5.0)

    lend(breaker, lambda: work(1.0))
    assert breaker.snapshot().counters.slow == 0
    lend(breaker, lambda: work(1.25))
    assert breaker.snapshot().counters.slow == 1


def test_the_first_settlement_of_a_borrowed_permit_wins(breaker: CircuitBreaker) -> None:
    with breaker.acquire():
        borrowed = breaker.acquire()
        borrowed.release()
        borrowed.failure()
        borrowed.success()
    assert totals(breaker) == (0, 0, 1, 0)


@each_lender
@pytest.mark.parametrize("borrow", BORROWERS)
def test_the_time_of_the_outer_call_counts_when_the_inner_has_nothing_to_say(
    clock: FakeClock, lend: Any, borrow: Any
) -> None:
    breaker = CircuitBreaker(
        "payments", settings=BreakerSettings(slow_call_duration=1.0), clock=clock
    )

    def work() -> None:
        clock.advance(0.75)
        with pytest.raises(KeyboardInterrupt):
            borrow(breaker, give_up)
        clock.advance(0.5)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        lend(breaker, work)
    assert breaker.snapshot().counters.slow == (0 if lend is by_generator else 1)


def test_a_stream_within_a_timed_call_is_never_slow(clock: FakeClock) -> None:
    settings = BreakerSettings(slow_call_duration=1.0)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    by_block(breaker, lambda: by_generator(breaker, lambda: clock.advance(60.0)))
    assert breaker.snapshot().counters.slow == 0


def test_a_call_that_hangs_does_so_from_its_own_start(clock: FakeClock) -> None:
    settings = BreakerSettings(
        window_calls=1,
        minimum_calls=1,
        slow_call_duration=1.0,
        slow_call_rate_threshold=1.0,
        open_on_hanging=True,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    states = []

    def look() -> None:
        clock.advance(0.75)
        states.append(breaker.state)
        clock.advance(0.5)
        states.append(breaker.state)

    def wait() -> None:
        clock.advance(0.75)
        by_call(breaker, look)

    by_block(breaker, wait)
    assert states == [CircuitState.CLOSED, CircuitState.OPEN]


def test_a_stream_within_a_call_that_may_hang_does_not_hang(clock: FakeClock) -> None:
    settings = BreakerSettings(
        window_calls=1,
        minimum_calls=1,
        slow_call_duration=1.0,
        slow_call_rate_threshold=1.0,
        open_on_hanging=True,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    with breaker.acquire():
        stream = breaker.call(two)
        next(stream)
        clock.advance(5.0)
        assert breaker.state is CircuitState.CLOSED
        stream.close()


@each_lender
@pytest.mark.parametrize("by_hand", ["force_open", "reset", "disable"])
def test_a_permit_of_an_earlier_state_is_not_lent(
    breaker: CircuitBreaker, lend: Any, by_hand: str
) -> None:
    def change() -> None:
        getattr(breaker, by_hand)()
        breaker.call(answer)

    if by_hand == "force_open":
        with pytest.raises(CircuitOpenError):
            lend(breaker, change)
        assert breaker.snapshot().counters.rejected == 1
    else:
        lend(breaker, change)
    succeeded = 1 if by_hand == "reset" else 0
    assert totals(breaker) == (succeeded, 0, 0, 1)


@each_lender
def test_a_probe_whose_lease_is_over_is_not_lent(clock: FakeClock, lend: Any) -> None:
    breaker = CircuitBreaker("payments", 1, 10.0, 1, clock=clock)
    half_open_circuit(breaker, clock)

    def outlast() -> str:
        clock.advance(60.0)
        return breaker.call(answer)

    assert lend(breaker, outlast) == "answer"
    assert breaker.state is CircuitState.CLOSED
    counters = breaker.snapshot().counters
    assert (counters.succeeded, counters.expired, counters.late) == (1, 1, 1)


@each_lender
def test_a_permit_that_is_settled_is_not_lent(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any
) -> None:
    half_open_circuit(breaker, clock)

    def settle_first() -> str:
        with breaker.acquire() as permit:
            permit.success()
            return breaker.call(answer)

    assert settle_first() == "answer"
    assert breaker.state is CircuitState.CLOSED
    assert totals(breaker) == (2, 2, 0, 0)


def test_a_healthy_permit_that_is_settled_but_not_counted_is_not_lent(
    breaker: CircuitBreaker,
) -> None:
    with breaker.acquire() as permit:
        permit.success()
        breaker.call(answer)
    assert totals(breaker) == (2, 0, 0, 0)


def test_a_permit_taken_by_hand_is_not_lent(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    breaker.call(answer)
    permit.success()
    assert totals(breaker) == (2, 0, 0, 0)


def test_a_permit_taken_by_hand_can_be_lent_in_a_block(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    with permit.lending(), pytest.raises(ConnectionError):
        breaker.call(fail)
    permit.success()
    assert totals(breaker) == (0, 1, 0, 0)


def test_a_borrowed_permit_is_a_probe_if_the_lenders_is(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    with breaker.acquire():
        assert not breaker.acquire().probe
    half_open_circuit(breaker, clock)
    with breaker.acquire():
        assert breaker.acquire().probe


def test_a_hint_of_the_inner_call_sets_the_open_time(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    with breaker.acquire():
        breaker.acquire().failure(retry_after=77.0)
    assert breaker.look().retry_after == 77.0


def test_a_failure_of_the_outer_call_does_not_wait_for_the_inner(breaker: CircuitBreaker) -> None:
    begun = []

    def time_out() -> None:
        begun.append(breaker.acquire())
        raise TimeoutError

    with pytest.raises(TimeoutError):
        by_block(breaker, time_out)
    assert totals(breaker) == (0, 1, 0, 0)
    begun[0].failure()
    assert totals(breaker) == (0, 1, 0, 0)


@pytest.mark.parametrize("outcome", ["success", "failure", "release"])
def test_an_inner_call_that_outlives_the_outer_settles_it(
    breaker: CircuitBreaker, outcome: str
) -> None:
    with breaker.acquire():
        inner = breaker.acquire()
    assert totals(breaker) == (0, 0, 0, 0)
    getattr(inner, outcome)()
    expected = {"success": (1, 0, 0, 0), "failure": (0, 1, 0, 0), "release": (0, 0, 1, 0)}
    assert totals(breaker) == expected[outcome]


def test_a_lender_that_is_released_twice_waits_for_the_inner_call(breaker: CircuitBreaker) -> None:
    with breaker.acquire() as permit:
        inner = breaker.acquire()
        permit.release()
    assert totals(breaker) == (0, 0, 0, 0)
    inner.success()
    assert totals(breaker) == (1, 0, 0, 0)


def test_a_failure_is_reported_to_the_operation_once(breaker: CircuitBreaker) -> None:
    with operation("work") as work, pytest.raises(ConnectionError):
        by_decorator(breaker, lambda: by_decorator(breaker, fail))
    assert work.failed == ["payments"]
    assert len(work.notes) == 1
