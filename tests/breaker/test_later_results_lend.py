"""A call whose result is not there yet lends to what gives it, as a call that is over does not."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import CircuitBreaker, CircuitState
from tests.support.circuits import half_open_circuit
from tests.support.later_results import Awaitable, settled
from tests.support.ways_through import answer_async, each_lender, fail_async, totals

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


async def test_a_task_that_a_call_gives_is_of_its_call_path(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", 1, 10.0, 1, clock=clock)
    inner = breaker(answer_async)
    half_open_circuit(breaker, clock)
    assert await breaker.call(lambda: asyncio.create_task(inner())) == "answer"
    await settled(breaker, 2)
    assert breaker.state is CircuitState.CLOSED
    assert totals(breaker) == (1, 1, 0, 0)


async def test_a_task_that_fails_within_a_call_counts_once(breaker: CircuitBreaker) -> None:
    inner = breaker(fail_async)
    with pytest.raises(ConnectionError):
        await breaker.call(lambda: asyncio.create_task(inner()))
    await settled(breaker, 1)
    await asyncio.sleep(0)
    assert totals(breaker) == (0, 1, 0, 0)


async def test_what_a_call_has_lent_before_it_gives_a_coroutine_counts_too(
    breaker: CircuitBreaker,
) -> None:
    def login_first() -> Any:
        breaker.call(lambda: "logged in")
        return answer_async()

    assert await breaker.call(login_first) == "answer"
    assert totals(breaker) == (2, 0, 0, 0)


async def test_a_coroutine_does_not_free_what_a_call_before_it_is_using(
    breaker: CircuitBreaker,
) -> None:
    begun = []

    def begin_first() -> Any:
        begun.append(breaker.acquire())
        return answer_async()

    assert await breaker.call(begin_first) == "answer"
    assert totals(breaker) == (1, 0, 0, 0)
    begun[0].failure()
    assert totals(breaker) == (1, 1, 0, 0)


@each_lender
def test_a_result_that_is_never_awaited_leaves_the_outer_call_a_success(
    breaker: CircuitBreaker, lend: Any
) -> None:
    def prepare() -> str:
        breaker.call(Awaitable, answer_async)
        return "answer"

    assert lend(breaker, prepare) == "answer"
    assert totals(breaker) == (1, 0, 0, 0)


async def test_a_coroutine_that_borrows_gives_its_permit_back_to_be_lent(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    with breaker.acquire():
        pending = breaker.call(lambda: answer_async())  # noqa: PLW0108 - a plain function
        assert breaker.snapshot().probes_running == 1
        assert breaker.call(lambda: "answer") == "answer"
    assert totals(breaker) == (1, 2, 0, 0)
    assert await pending == "answer"
    assert totals(breaker) == (2, 2, 0, 0)


def test_a_coroutine_that_borrows_longer_than_its_lender_lasts_frees_the_probe(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    begun, left = threading.Event(), threading.Event()

    def outlive() -> Any:
        begun.set()
        left.wait(10)
        return answer_async()

    threads = []

    def begin() -> None:
        context = contextvars.copy_context()
        work = threading.Thread(target=lambda: asyncio.run(context.run(breaker.call, outlive)))
        work.start()
        threads.append(work)
        begun.wait(10)

    breaker.call(begin)
    left.set()
    threads[0].join(10)
    assert breaker.snapshot().probes_running == 0
