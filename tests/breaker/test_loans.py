"""Where a loan is seen: in the code of the call that made it, and nowhere else."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import CircuitBreaker, CircuitState
from fusewire.breaker._loans import current_loan
from tests.support.circuits import half_open_circuit
from tests.support.ways_through import (
    answer,
    answer_async,
    by_block,
    by_decorator,
    decorated,
    each_async_borrower,
    each_async_lender,
    each_lender,
    each_lender_around,
    fail,
    fail_async,
    totals,
    two,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

    from fusewire.testing import FakeClock

# A loan ends with the code.


@each_lender
def test_no_loan_is_left_behind(breaker: CircuitBreaker, lend: Any) -> None:
    lend(breaker, lambda: by_decorator(breaker, answer))
    assert current_loan() is None
    with pytest.raises(ConnectionError):
        lend(breaker, lambda: by_decorator(breaker, fail))
    assert current_loan() is None


@each_lender
@each_lender_around
def test_the_loan_around_is_there_again(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any, around: Any
) -> None:
    other = CircuitBreaker("ledger", clock=clock)
    seen = []

    def work() -> None:
        seen.append(current_loan())
        lend(other, answer)
        seen.append(current_loan())

    around(breaker, work)
    assert seen[0] is not None
    assert seen[0] is seen[1]


@each_async_lender
async def test_the_loan_around_is_there_again_after_an_awaited_call(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any
) -> None:
    other = CircuitBreaker("ledger", clock=clock)
    seen = []

    async def work() -> None:
        seen.append(current_loan())
        await lend(other, answer_async)
        seen.append(current_loan())

    await decorated(breaker, work)
    assert seen[0] is not None
    assert seen[0] is seen[1]


def test_a_loan_is_not_seen_by_the_reader_of_a_generator(breaker: CircuitBreaker) -> None:
    stream = breaker(two)()
    next(stream)
    assert current_loan() is None
    breaker.call(answer)
    assert totals(breaker) == (1, 0, 0, 0)
    assert list(stream) == [2]
    assert totals(breaker) == (2, 0, 0, 0)


def test_each_step_of_a_generator_lends(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open_circuit(breaker, clock)

    @breaker
    def items() -> Iterator[Any]:
        try:
            yield "first"
        except LookupError:
            yield "thrown"
        try:
            yield (yield "again")
        finally:
            by_block(breaker, answer)

    stream: Any = items()
    assert next(stream) == "first"
    assert stream.throw(LookupError()) == "thrown"
    assert stream.send(None) == "again"
    assert stream.send("sent") == "sent"
    stream.close()
    assert totals(breaker) == (1, 2, 0, 0)
    assert breaker.snapshot().probes_running == 0


async def test_each_step_of_an_async_generator_lends(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)

    @breaker
    async def items() -> AsyncIterator[Any]:
        try:
            yield "first"
        finally:
            await breaker.call_async(answer_async)

    stream: Any = items()
    assert await anext(stream) == "first"
    assert current_loan() is None
    await stream.aclose()
    assert current_loan() is None
    assert totals(breaker) == (1, 2, 0, 0)


def test_blocks_that_end_out_of_order_leave_the_others_loan_alone(
    breaker: CircuitBreaker,
) -> None:
    first, second = breaker.acquire(), CircuitBreaker("ledger").acquire()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    by_decorator(breaker, answer)
    second.__exit__(None, None, None)
    assert totals(breaker) == (2, 0, 0, 0)
    breaker.call(answer)
    assert totals(breaker) == (3, 0, 0, 0)


def depth() -> int:
    """Return how many loans are kept alive by this code's context."""
    loan, found = current_loan(), 0
    while loan is not None:
        loan, found = loan[1], found + 1
    return found


def test_loans_of_blocks_that_end_out_of_order_do_not_pile_up(breaker: CircuitBreaker) -> None:
    previous = breaker.acquire()
    previous.__enter__()
    for _ in range(20):
        permit = breaker.acquire()
        permit.__enter__()
        previous.__exit__(None, None, None)
        previous = permit
    previous.__exit__(None, None, None)
    permits = breaker.acquire(), breaker.acquire()
    for permit in permits:
        permit.__enter__()
    assert depth() <= 3
    for permit in permits:
        permit.__exit__(None, None, None)


def test_loans_of_calls_that_leave_work_behind_do_not_pile_up(breaker: CircuitBreaker) -> None:
    left_behind = []

    @breaker
    def work() -> int:
        left_behind.append(contextvars.copy_context())
        return depth()

    assert work() == 1
    for _ in range(5):
        assert left_behind[-1].run(work) == 1


@pytest.mark.parametrize("by_another", [False, True])
def test_work_that_an_inner_call_leaves_behind_borrows_from_the_outer(
    breaker: CircuitBreaker, clock: FakeClock, *, by_another: bool
) -> None:
    left_behind = []

    def inner() -> None:
        left_behind.append(contextvars.copy_context())
        raise KeyboardInterrupt

    def work() -> str:
        if by_another:
            return CircuitBreaker("ledger").call(breaker.call, answer)
        return breaker.call(answer)

    half_open_circuit(breaker, clock)
    with breaker.acquire():
        with pytest.raises(KeyboardInterrupt):
            breaker.call(inner)
        assert left_behind[0].run(work) == "answer"
    assert totals(breaker) == (1, 2, 0, 0)


async def test_loans_of_tasks_that_start_each_other_do_not_pile_up(
    breaker: CircuitBreaker,
) -> None:
    started: list[asyncio.Task[int]] = []

    @breaker
    async def work(left: int) -> int:
        if left:
            started.append(asyncio.create_task(work(left - 1)))
        return depth()

    assert await work(5) == 1
    for number in range(5):
        assert await started[number] == 1


def test_code_that_is_abandoned_ends_no_other_loan(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    class Forever:
        def __await__(self) -> Iterator[None]:
            while True:
                yield

    async def hang() -> None:
        await Forever()

    def start() -> Any:
        coroutine = breaker(hang)()
        contextvars.Context().run(coroutine.send, None)
        return coroutine

    other = CircuitBreaker("ledger", 1, 10.0, 1, clock=clock)
    abandoned = start()
    half_open_circuit(other, clock)
    with other.acquire():
        del abandoned
        gc.collect()
        assert other.call(answer) == "answer"
    assert other.state is CircuitState.CLOSED
    assert totals(breaker) == (0, 0, 1, 0)


# Threads and tasks.


def test_a_thread_with_the_context_is_of_the_same_call_path(breaker: CircuitBreaker) -> None:
    def work() -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(breaker.call, answer))
        thread.start()
        thread.join()

    by_decorator(breaker, work)
    assert totals(breaker) == (1, 0, 0, 0)


def test_a_thread_without_the_context_is_another_call_path(breaker: CircuitBreaker) -> None:
    def work() -> None:
        thread = threading.Thread(target=breaker.call, args=(answer,))
        thread.start()
        thread.join()

    by_decorator(breaker, work)
    assert totals(breaker) == (2, 0, 0, 0)


@each_async_lender
@each_async_borrower
async def test_awaited_calls_within_each_other_are_one(
    clock: FakeClock, lend: Any, borrow: Any
) -> None:
    breaker = CircuitBreaker("payments", 2, 10.0, 1, clock=clock)
    with pytest.raises(ConnectionError):
        await lend(breaker, lambda: borrow(breaker, fail_async))
    assert totals(breaker) == (0, 1, 0, 0)
    assert await lend(breaker, lambda: borrow(breaker, answer_async)) == "answer"
    assert totals(breaker) == (1, 1, 0, 0)
    half_open_circuit(breaker, clock)
    assert await lend(breaker, lambda: borrow(breaker, answer_async)) == "answer"
    assert breaker.state is CircuitState.CLOSED
    assert current_loan() is None


@each_async_lender
async def test_each_of_calls_side_by_side_counts_for_itself(
    breaker: CircuitBreaker, lend: Any
) -> None:
    guarded = breaker(answer_async)
    await lend(breaker, lambda: asyncio.gather(guarded(), guarded(), guarded()))
    assert totals(breaker) == (3, 0, 0, 0)


async def test_a_task_that_outlives_the_call_that_made_it_is_another_call(
    breaker: CircuitBreaker,
) -> None:
    tasks: list[Awaitable[str]] = []

    @breaker
    async def start() -> None:
        tasks.append(asyncio.create_task(breaker.call_async(answer_async)))

    await start()
    await tasks[0]
    assert totals(breaker) == (2, 0, 0, 0)


async def test_a_function_in_a_thread_of_asyncios_is_of_the_same_call_path(
    breaker: CircuitBreaker,
) -> None:
    @breaker
    async def work() -> Any:
        return await asyncio.to_thread(breaker.call, answer)

    assert await work() == "answer"
    assert totals(breaker) == (1, 0, 0, 0)


async def test_an_inner_call_that_times_out_is_a_failure_of_the_outer(
    breaker: CircuitBreaker,
) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    @breaker
    async def work() -> None:
        await asyncio.wait_for(breaker.call_async(hang), 0.01)

    with pytest.raises(TimeoutError):
        await work()
    assert totals(breaker) == (0, 1, 0, 0)


async def test_an_awaited_call_does_not_lend_to_other_tasks(breaker: CircuitBreaker) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @breaker
    async def wait() -> None:
        begun.set()
        await go_on.wait()

    task = asyncio.create_task(wait())
    await begun.wait()
    breaker.call(answer)
    go_on.set()
    await task
    assert totals(breaker) == (2, 0, 0, 0)
