"""Fallbacks that give the items of a stream: they are driven as the stream itself would be."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import CircuitBreaker, CircuitOpenError
from fusewire.operation import operation

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator


def down() -> Iterator[str]:
    raise ConnectionError
    yield "never"


async def down_async() -> AsyncGenerator[str, Any]:
    raise ConnectionError
    yield "never"


async def test_a_fallback_in_whose_block_an_error_is_raised_rolls_back(
    breaker: CircuitBreaker,
) -> None:
    seen = []

    @breaker
    async def replica() -> AsyncIterator[str]:
        try:
            yield "replica"
        except LookupError:
            seen.append("rolled back")
            raise
        finally:
            seen.append("closed")

    session = asynccontextmanager(breaker(down_async, fallback=replica))

    async def work() -> None:
        async with session() as given:
            assert given == "replica"
            raise LookupError

    with pytest.raises(LookupError):
        await work()
    assert seen == ["rolled back", "closed"]


async def test_a_fallback_is_sent_what_is_sent(breaker: CircuitBreaker) -> None:
    async def echo() -> AsyncGenerator[str, str]:
        sent = yield "first"
        yield sent

    stream = breaker(down_async, fallback=echo)()
    assert await anext(stream) == "first"
    assert await stream.asend("sent") == "sent"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_fallback_is_closed_with_its_stream(breaker: CircuitBreaker) -> None:
    closed = []

    async def replica() -> AsyncIterator[str]:
        try:
            yield "replica"
        finally:
            closed.append("closed")

    async with aclosing(breaker(down_async, fallback=replica)()) as stream:
        assert await anext(stream) == "replica"
    assert closed == ["closed"]


async def test_an_empty_stream_needs_no_fallback(breaker: CircuitBreaker) -> None:
    async def empty() -> AsyncIterator[str]:
        for item in ():
            yield item

    stream = breaker(empty, fallback=lambda: ["kept"])
    assert [item async for item in stream()] == []
    assert breaker.snapshot().counters.succeeded == 1


async def test_a_stream_is_closed_before_its_fallback_begins(breaker: CircuitBreaker) -> None:
    seen = []

    async def broken() -> AsyncIterator[str]:
        try:
            raise ConnectionError
            yield "never"
        finally:
            seen.append("closed")

    async def replica() -> AsyncIterator[str]:
        seen.append(f"{breaker.snapshot().counters.failed} failed")
        yield "replica"

    assert [item async for item in breaker(broken, fallback=replica)()] == ["replica"]
    assert seen == ["closed", "1 failed"]


# What the unit of work knows of it: a handler that sees no refusal does not wait for its end.


def test_a_refusal_that_items_answered_is_none_to_the_handler(breaker: CircuitBreaker) -> None:
    breaker.force_open()
    stream = breaker(down, fallback=lambda: iter(["kept"]))
    with operation("op-1") as work:
        assert next(stream()) == "kept"
        assert work.rejected == []


async def test_a_refusal_that_async_items_answered_is_none_to_the_handler(
    breaker: CircuitBreaker,
) -> None:
    breaker.force_open()
    stream = breaker(down_async, fallback=lambda: ["kept"])
    with operation("op-1") as work:
        async with aclosing(stream()) as items:
            assert await anext(items) == "kept"
        assert work.rejected == []


def test_a_refusal_whose_fallback_fails_is_one_to_the_handler(breaker: CircuitBreaker) -> None:
    breaker.force_open()
    with operation("op-1") as work:
        with pytest.raises(ConnectionError) as failed:
            list(breaker(down, fallback=down)())
        assert isinstance(failed.value.__cause__, CircuitOpenError)
        assert work.rejected == ["payments"]


async def test_a_refusal_whose_async_fallback_fails_is_one_to_the_handler(
    breaker: CircuitBreaker,
) -> None:
    breaker.force_open()
    with operation("op-1") as work:
        with pytest.raises(ConnectionError) as failed:
            await anext(breaker(down_async, fallback=down_async)())
        assert isinstance(failed.value.__cause__, CircuitOpenError)
        assert work.rejected == ["payments"]


@pytest.mark.parametrize("rejected", [False, True])
@pytest.mark.parametrize("observed", [False, True])
async def test_a_fallback_that_fails_raises_its_own_error(
    breaker: CircuitBreaker, *, rejected: bool, observed: bool
) -> None:
    def fallback() -> Iterator[str]:
        raise LookupError

    if rejected:
        breaker.force_open()
    with operation("op-1") if observed else nullcontext():
        with pytest.raises(LookupError):
            list(breaker(down, fallback=fallback)())
        with pytest.raises(LookupError):
            await anext(breaker(down_async, fallback=fallback)())


def test_a_plain_fallback_in_whose_block_an_error_is_raised_rolls_back(
    breaker: CircuitBreaker,
) -> None:
    seen = []

    def replica() -> Generator[str, None, None]:
        try:
            yield "replica"
        except LookupError:
            seen.append("rolled back")
            raise

    with pytest.raises(LookupError), contextmanager(breaker(down, fallback=replica))():
        raise LookupError
    assert seen == ["rolled back"]
