"""When a circuit publishes the loans of its healthy calls."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Outcome,
)
from fusewire.breaker._lending import PROVING
from fusewire.breaker._loans import current_loan
from tests.support.circuits import half_open_circuit, open_circuit
from tests.support.ways_through import BORROWERS, answer, answer_async, by_decorator, totals

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

# When loans of healthy calls are published.


def publishes(breaker: CircuitBreaker) -> bool:
    seen: list[object] = []
    breaker(lambda: seen.append(current_loan()))()
    return seen[0] is not None


def test_a_circuit_in_whose_calls_there_are_no_others_stops_publishing_loans(
    breaker: CircuitBreaker,
) -> None:
    guarded = breaker(answer)
    for _ in range(PROVING - 1):
        guarded()
    assert publishes(breaker)
    assert not publishes(breaker)
    assert totals(breaker) == (PROVING + 1, 0, 0, 0)


async def test_an_awaited_call_counts_to_that_too(breaker: CircuitBreaker) -> None:
    guarded = breaker(answer_async)
    for _ in range(PROVING - 1):
        await guarded()
    assert publishes(breaker)
    assert not publishes(breaker)


def test_other_settings_do_not_spare_a_circuit_its_last_proof(breaker: CircuitBreaker) -> None:
    breaker._unproven = 1
    breaker.replace_settings(BreakerSettings(failure_threshold=3))
    assert publishes(breaker)
    assert not publishes(breaker)


def test_the_last_call_that_publishes_may_end_during_a_probe(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    def probe_meanwhile() -> None:
        half_open_circuit(breaker, clock)
        breaker.acquire()

    breaker._unproven = 1
    breaker.call(lambda: contextvars.Context().run(probe_meanwhile))
    assert totals(breaker) == (0, 2, 0, 1)
    assert breaker.snapshot().probes_running == 1


def test_a_circuit_in_whose_calls_there_are_others_goes_on(breaker: CircuitBreaker) -> None:
    inner = breaker(answer)
    outer = breaker(lambda: inner())  # noqa: PLW0108 - a function of its own
    for _ in range(PROVING + 1):
        outer()
    assert publishes(breaker)
    assert totals(breaker) == (PROVING + 2, 0, 0, 0)


@pytest.mark.parametrize("borrow", BORROWERS)
def test_a_call_that_comes_while_another_is_in_progress_begins_it_again(
    breaker: CircuitBreaker, borrow: Any
) -> None:
    prove(breaker)
    before = breaker.snapshot().counters.succeeded
    assert by_decorator(breaker, lambda: borrow(breaker, answer)) == "answer"
    # Nobody could know of the first outer call.
    assert breaker.snapshot().counters.succeeded == before + 2
    for _ in range(PROVING + 1):
        by_decorator(breaker, lambda: borrow(breaker, answer))
    assert breaker.snapshot().counters.succeeded == before + 2 + PROVING + 1


def test_other_settings_do_not_hide_the_call_in_progress(breaker: CircuitBreaker) -> None:
    def change_and_call() -> None:
        breaker.replace_settings(BreakerSettings(failure_threshold=3))
        breaker.call(answer)

    prove(breaker)
    breaker.call(change_and_call)
    assert publishes(breaker)


async def test_an_awaited_call_that_meets_another_begins_it_again(
    breaker: CircuitBreaker,
) -> None:
    prove(breaker)
    guarded = breaker(answer_async)
    await asyncio.gather(guarded(), guarded())
    assert publishes(breaker)


@pytest.mark.parametrize("error", [ConnectionError, KeyboardInterrupt])
async def test_a_call_that_fails_alone_is_in_progress_no_more(
    breaker: CircuitBreaker, error: type[BaseException]
) -> None:
    def work() -> None:
        raise error

    async def work_async() -> None:
        raise error

    prove(breaker)
    with pytest.raises(error):
        breaker(work)()
    assert not publishes(breaker)
    with pytest.raises(error):
        await breaker(work_async)()
    assert not publishes(breaker)


def test_a_circuit_that_closes_again_has_still_proved_itself(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    prove(breaker)
    half_open_circuit(breaker, clock)
    assert publishes(breaker)
    breaker.call(answer)
    assert breaker.state is CircuitState.CLOSED
    assert not publishes(breaker)


def test_a_circuit_that_judges_results_publishes(breaker: CircuitBreaker) -> None:
    prove(breaker)
    breaker.replace_settings(BreakerSettings(classify_result=lambda _: Outcome.SUCCESS))
    assert publishes(breaker)


def prove(breaker: CircuitBreaker) -> None:
    guarded = breaker(answer)
    for _ in range(PROVING):
        guarded()
    assert not publishes(breaker)


def test_what_is_over_cannot_be_borrowed(breaker: CircuitBreaker) -> None:
    assert breaker._lend(0.0, breaker, [breaker, None], 0.0) is None


def test_an_open_circuit_is_open_for_calls_within_others(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    other = CircuitBreaker("ledger", clock=clock)
    open_circuit(breaker)
    with pytest.raises(CircuitOpenError) as refused:
        other.call(lambda: breaker.call(answer))
    assert refused.value.name == "payments"
