"""A circuit that is met twice in one call path: one call, one permit, counted once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import CircuitBreaker, CircuitOpenError, CircuitState
from tests.support.circuits import half_open_circuit
from tests.support.ways_through import (
    answer,
    by_block,
    by_decorator,
    by_permit,
    each_borrower,
    each_lender,
    fail,
    give_up,
    totals,
)

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


@each_lender
@each_borrower
def test_a_failure_of_both_is_one(breaker: CircuitBreaker, lend: Any, borrow: Any) -> None:
    with pytest.raises(ConnectionError):
        lend(breaker, lambda: borrow(breaker, fail))
    assert totals(breaker) == (0, 1, 0, 0)
    assert breaker.state is CircuitState.CLOSED


@each_lender
@each_borrower
def test_a_success_of_both_is_one(breaker: CircuitBreaker, lend: Any, borrow: Any) -> None:
    for _ in range(3):
        assert lend(breaker, lambda: borrow(breaker, answer)) == "answer"
    assert totals(breaker) == (3, 0, 0, 0)


@each_lender
@each_borrower
@pytest.mark.parametrize("probes", [1, 2, 3])
def test_as_many_call_paths_close_a_circuit_as_probes_are_wanted(
    clock: FakeClock, lend: Any, borrow: Any, probes: int
) -> None:
    breaker = CircuitBreaker("payments", 1, 10.0, probes, clock=clock)
    half_open_circuit(breaker, clock)
    for _ in range(probes):
        assert breaker.state is CircuitState.HALF_OPEN
        assert lend(breaker, lambda: borrow(breaker, answer)) == "answer"
    assert breaker.state is CircuitState.CLOSED
    assert totals(breaker) == (probes, 1, 0, 0)


@each_lender
@each_borrower
def test_three_levels_are_one_call(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any, borrow: Any
) -> None:
    half_open_circuit(breaker, clock)
    with pytest.raises(ConnectionError):
        lend(breaker, lambda: by_decorator(breaker, lambda: borrow(breaker, fail)))
    assert totals(breaker) == (0, 3, 0, 0)
    assert breaker.state is CircuitState.OPEN


def test_what_recurs_is_one_call(breaker: CircuitBreaker) -> None:
    @breaker
    def count_down(number: int) -> int:
        return count_down(number - 1) if number else number

    assert count_down(5) == 0
    assert totals(breaker) == (1, 0, 0, 0)


@each_lender
def test_a_circuit_between_does_not_hide_a_loan(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any
) -> None:
    other = CircuitBreaker("ledger", clock=clock)
    inner = breaker(fail)
    with pytest.raises(ConnectionError):
        lend(breaker, lambda: other.call(inner))
    assert totals(breaker) == (0, 1, 0, 0)
    assert totals(other) == (0, 1, 0, 0)


@each_lender
def test_a_breaker_of_the_same_name_is_another(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any
) -> None:
    other = CircuitBreaker(breaker.name, clock=clock)
    assert lend(breaker, lambda: by_block(other, answer)) == "answer"
    assert totals(breaker) == totals(other) == (1, 0, 0, 0)


@each_lender
@each_borrower
def test_each_retry_within_counts_for_itself(clock: FakeClock, lend: Any, borrow: Any) -> None:
    breaker = CircuitBreaker("payments", 3, 10.0, 1, clock=clock)
    tries = 0

    def retry() -> str:
        nonlocal tries
        for _ in range(2):
            tries += 1
            with pytest.raises(ConnectionError):
                borrow(breaker, fail)
        return borrow(breaker, answer)

    assert lend(breaker, retry) == "answer"
    assert (tries, totals(breaker)) == (2, (1, 2, 0, 0))


@each_lender
@each_borrower
def test_a_retry_after_a_failed_probe_is_rejected(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any, borrow: Any
) -> None:
    half_open_circuit(breaker, clock)

    def retry() -> None:
        with pytest.raises(ConnectionError):
            borrow(breaker, fail)
        borrow(breaker, answer)

    with pytest.raises(CircuitOpenError):
        lend(breaker, retry)
    counters = breaker.snapshot().counters
    assert (counters.succeeded, counters.failed, counters.ignored) == (0, 3, 0)
    assert (counters.rejected, counters.late, counters.opened) == (1, 0, 2)


@each_lender
@each_borrower
def test_the_inner_end_is_what_counts(breaker: CircuitBreaker, lend: Any, borrow: Any) -> None:
    def swallow() -> str:
        with pytest.raises(ConnectionError):
            borrow(breaker, fail)
        return "from the cache"

    def break_after() -> None:
        borrow(breaker, answer)
        raise LookupError

    assert lend(breaker, swallow) == "from the cache"
    assert totals(breaker) == (0, 1, 0, 0)
    with pytest.raises(LookupError):
        lend(breaker, break_after)
    assert totals(breaker) == (1, 1, 0, 0)
    assert breaker.snapshot().consecutive_failures == 0


@each_lender
@each_borrower
def test_an_inner_call_with_nothing_to_say_leaves_a_failure_to_the_outer(
    breaker: CircuitBreaker, lend: Any, borrow: Any
) -> None:
    def time_out() -> None:
        try:
            borrow(breaker, give_up)
        except KeyboardInterrupt:
            raise TimeoutError from None

    with pytest.raises(TimeoutError):
        lend(breaker, time_out)
    assert totals(breaker) == (0, 1, 0, 0)


@each_lender
@each_borrower
def test_an_inner_call_with_nothing_to_say_is_no_success_of_the_outer(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any, borrow: Any
) -> None:
    half_open_circuit(breaker, clock)

    def swallow() -> None:
        with pytest.raises(KeyboardInterrupt):
            borrow(breaker, give_up)

    lend(breaker, swallow)
    assert totals(breaker) == (0, 2, 1, 0)
    snapshot = breaker.snapshot()
    assert (snapshot.probes_running, snapshot.probes_succeeded) == (0, 0)


@each_lender
@each_borrower
def test_what_an_inner_call_gives_back_is_lent_to_the_next(
    clock: FakeClock, lend: Any, borrow: Any
) -> None:
    breaker = CircuitBreaker("payments", 1, 10.0, 1, clock=clock)
    half_open_circuit(breaker, clock)

    def refresh_the_token() -> str:
        with pytest.raises(KeyboardInterrupt):
            borrow(breaker, give_up)
        return borrow(breaker, answer)

    assert lend(breaker, refresh_the_token) == "answer"
    assert breaker.state is CircuitState.CLOSED
    assert totals(breaker) == (1, 1, 0, 0)


def test_what_a_middle_call_gives_back_goes_all_the_way(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    with pytest.raises(KeyboardInterrupt):
        by_block(breaker, lambda: by_block(breaker, lambda: by_permit(breaker, give_up)))
    assert totals(breaker) == (0, 2, 1, 0)
    assert breaker.snapshot().probes_running == 0
