"""Ways through a circuit, to be put within each other; each does `work` within."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from fusewire.breaker import CircuitBreaker

    Work = Callable[[], Any]


def totals(breaker: CircuitBreaker) -> tuple[int, int, int, int]:
    counters = breaker.snapshot().counters
    return counters.succeeded, counters.failed, counters.ignored, counters.late


def answer() -> str:
    return "answer"


def fail() -> str:
    raise ConnectionError("down")


def two() -> Generator[int]:
    yield 1
    yield 2


def give_up() -> str:
    raise KeyboardInterrupt


def by_decorator(breaker: CircuitBreaker, work: Work) -> Any:
    return breaker(lambda: work())()  # noqa: PLW0108 - a function of its own


def by_call(breaker: CircuitBreaker, work: Work) -> Any:
    return breaker.call(work)


def by_block(breaker: CircuitBreaker, work: Work) -> Any:
    with breaker.acquire():
        return work()


def by_generator(breaker: CircuitBreaker, work: Work) -> Any:
    @breaker
    def items() -> Iterator[Any]:
        yield work()

    return next(iter(list(items())))


def by_permit(breaker: CircuitBreaker, work: Work) -> Any:
    permit = breaker.acquire()
    try:
        result = work()
    except BaseException as error:
        permit.settle(breaker.classify(error))
        raise
    permit.success()
    return result


LENDERS = [by_decorator, by_call, by_block, by_generator]
BORROWERS = [*LENDERS, by_permit]
each_lender_around = pytest.mark.parametrize("around", LENDERS)
each_lender = pytest.mark.parametrize("lend", LENDERS)
each_borrower = pytest.mark.parametrize("borrow", BORROWERS)


async def answer_async() -> str:
    await asyncio.sleep(0)
    return "answer"


async def fail_async() -> str:
    await asyncio.sleep(0)
    raise ConnectionError("down")


async def decorated(breaker: CircuitBreaker, work: Work) -> Any:
    @breaker
    async def call() -> Any:
        return await work()

    return await call()


async def called(breaker: CircuitBreaker, work: Work) -> Any:
    return await breaker.call_async(work)


async def plainly_called(breaker: CircuitBreaker, work: Work) -> Any:
    return await breaker.call(lambda: work())  # noqa: PLW0108 - a plain function that gives a coroutine


async def in_block(breaker: CircuitBreaker, work: Work) -> Any:
    async with breaker.acquire():
        return await work()


async def in_generator(breaker: CircuitBreaker, work: Work) -> Any:
    @breaker
    async def items() -> AsyncIterator[Any]:
        yield await work()

    (item,) = [item async for item in items()]
    return item


ASYNC = [decorated, called, plainly_called, in_block, in_generator]
each_async_lender = pytest.mark.parametrize("lend", ASYNC)
each_async_borrower = pytest.mark.parametrize("borrow", ASYNC)
