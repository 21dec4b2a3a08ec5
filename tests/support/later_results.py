"""Results that are not there yet, of all kinds."""

from __future__ import annotations

import asyncio
import concurrent.futures
import types
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ways_through import totals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from fusewire.breaker import CircuitBreaker


def future_of(result: Any) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


class Awaitable:
    """An object that can only be awaited, and has something to say besides."""

    status = "sent"

    def __init__(self, func: Callable[[], Any]) -> None:
        self._func = func

    def __await__(self) -> Generator[Any, Any, Any]:
        result: Generator[Any, Any, Any] = self._func().__await__()
        return result


@types.coroutine
def old_coroutine(func: Callable[[], Any]) -> Generator[Any, Any, Any]:
    return (yield from func().__await__())


class WithCallbacks:
    """A call that reports its end, and how only when it is awaited, as a call of grpc.aio does."""

    def __init__(self, func: Callable[[], Any]) -> None:
        self._task = asyncio.ensure_future(func())

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._task.__await__()

    def cancelled(self) -> bool:
        return self._task.cancelled()

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._task.add_done_callback(lambda _: callback(self))


AWAITED: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "coroutine": lambda func: func(),
    "task": lambda func: asyncio.ensure_future(func()),
    "gathering": lambda func: asyncio.gather(func()),
    "shielded": lambda func: asyncio.shield(func()),
    "awaitable": Awaitable,
    "old coroutine": old_coroutine,
    "call": WithCallbacks,
}
ANSWERS = ("answer", ["answer"])
awaited = pytest.mark.parametrize("make", AWAITED.values(), ids=AWAITED)


async def settled(breaker: CircuitBreaker, calls: int) -> None:
    """Wait until so many calls are counted: a callback may come after who awaits goes on."""
    async with asyncio.timeout(10):
        while sum(totals(breaker)) < calls:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)


async def items_async(count: int, *, fail_at: int = -1) -> AsyncIterator[int]:
    for item in range(count):
        await asyncio.sleep(0)
        if item == fail_at:
            raise ConnectionError("down")
        yield item


def items(count: int, *, fail_at: int = -1) -> Iterator[int]:
    for item in range(count):
        if item == fail_at:
            raise ConnectionError("down")
        yield item
