"""Generators and async generators through a circuit."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerSettings, CircuitBreaker, CircuitOpenError, CircuitState
from fusewire.operation import without_fallbacks
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from fusewire.testing import FakeClock


def items(count: int, *, fail_at: int = -1) -> Iterator[int]:
    for item in range(count):
        if item == fail_at:
            raise ConnectionError("down")
        yield item


async def items_async(count: int, *, fail_at: int = -1) -> AsyncIterator[int]:
    for item in range(count):
        await asyncio.sleep(0)
        if item == fail_at:
            raise ConnectionError("down")
        yield item


async def gather(stream: AsyncIterator[int]) -> list[int]:
    return [item async for item in stream]


def totals(breaker: CircuitBreaker) -> tuple[int, int, int]:
    counters = breaker.snapshot().counters
    return counters.succeeded, counters.failed, counters.ignored


def test_a_generator_is_one_call_settled_at_its_end(breaker: CircuitBreaker) -> None:
    guarded = breaker(items)
    assert inspect.isgeneratorfunction(guarded)
    assert guarded.__name__ == "items"
    stream = guarded(3)
    assert next(stream) == 0
    assert totals(breaker) == (0, 0, 0)
    assert list(stream) == [1, 2]
    assert totals(breaker) == (1, 0, 0)


async def test_an_async_generator_is_one_call_settled_at_its_end(breaker: CircuitBreaker) -> None:
    guarded = breaker(items_async)
    assert inspect.isasyncgenfunction(guarded)
    assert guarded.__name__ == "items_async"
    stream = guarded(3)
    assert await anext(stream) == 0
    assert totals(breaker) == (0, 0, 0)
    assert await gather(stream) == [1, 2]
    assert totals(breaker) == (1, 0, 0)


def test_a_generator_that_is_never_begun_takes_no_permit(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    streams = [breaker(items)(3) for _ in range(5)]
    assert breaker.snapshot().probes_running == 0
    assert [next(stream) for stream in streams[:2]] == [0, 0]
    with pytest.raises(CircuitOpenError):
        next(streams[2])


def test_a_generator_that_fails_counts_as_a_failure(breaker: CircuitBreaker) -> None:
    for _ in range(2):
        with pytest.raises(ConnectionError):
            list(breaker(items)(3, fail_at=2))
    assert breaker.state is CircuitState.OPEN


async def test_an_async_generator_that_fails_counts_as_a_failure(breaker: CircuitBreaker) -> None:
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await gather(breaker(items_async)(3, fail_at=2))
    assert breaker.state is CircuitState.OPEN


def test_a_generator_takes_what_is_sent_and_thrown_and_returns(breaker: CircuitBreaker) -> None:
    @breaker
    def echo() -> Generator[Any, Any, str]:
        heard = []
        for _ in range(3):
            try:
                heard.append((yield len(heard)))
            except KeyError as error:
                heard.append(error.args[0])
        return "".join(heard)

    stream = echo()
    assert next(stream) == 0
    assert stream.send("a") == 1
    assert stream.throw(KeyError("b")) == 2
    with pytest.raises(StopIteration) as ended:
        stream.send("c")
    assert ended.value.value == "abc"
    assert totals(breaker) == (1, 0, 0)


async def test_an_async_generator_takes_what_is_sent_and_thrown(breaker: CircuitBreaker) -> None:
    heard: list[str] = []

    @breaker
    async def echo() -> Any:
        for _ in range(3):
            try:
                heard.append((yield len(heard)))
            except KeyError as error:
                heard.append(error.args[0])

    stream = echo()
    assert await anext(stream) == 0
    assert await stream.asend("a") == 1
    assert await stream.athrow(KeyError("b")) == 2
    with pytest.raises(StopAsyncIteration):
        await stream.asend("c")
    assert heard == ["a", "b", "c"]
    assert totals(breaker) == (1, 0, 0)


async def test_what_is_thrown_into_an_async_generator_and_comes_out_again_counts(
    breaker: CircuitBreaker,
) -> None:
    stream: Any = breaker(items_async)(3)
    await anext(stream)
    with pytest.raises(ConnectionError):
        await stream.athrow(ConnectionError())
    assert totals(breaker) == (0, 1, 0)


class StopError(BaseException):
    """What a framework throws that is no Exception."""


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize(
    "error", [asyncio.CancelledError, StopError, KeyboardInterrupt, ValueError]
)
async def test_whatever_is_thrown_into_an_async_generator_reaches_it(
    breaker: CircuitBreaker,
    error: type[BaseException],
    guarded: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    seen: list[type[BaseException]] = []

    async def session() -> AsyncIterator[int]:
        try:
            yield 1
        except BaseException as thrown:
            seen.append(type(thrown))
            raise

    stream: Any = breaker(session)() if guarded else session()
    await anext(stream)
    with pytest.raises(error):
        await stream.athrow(error())
    assert seen == [error]
    if guarded:
        assert totals(breaker) == ((0, 1, 0) if error is ValueError else (0, 0, 1))


@pytest.mark.parametrize("guarded", [False, True])
async def test_a_transaction_is_rolled_back_when_its_task_is_cancelled(
    breaker: CircuitBreaker,
    guarded: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    ends = []

    async def transaction() -> AsyncIterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            ends.append("rolled back")
            raise
        else:
            ends.append("committed")

    manage = asynccontextmanager(breaker(transaction) if guarded else transaction)
    begun = asyncio.Event()

    async def work() -> None:
        async with manage():
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ends == ["rolled back"]


@pytest.mark.parametrize("guarded", [False, True])
async def test_an_async_generator_may_swallow_a_cancellation(
    breaker: CircuitBreaker,
    guarded: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async def swallow() -> AsyncIterator[None]:
        with suppress(asyncio.CancelledError):
            yield

    async with asynccontextmanager(breaker(swallow) if guarded else swallow)():
        raise asyncio.CancelledError
    assert totals(breaker) == ((1, 0, 0) if guarded else (0, 0, 0))


@pytest.mark.parametrize("guarded", [False, True])
async def test_an_async_generator_that_is_closed_sees_just_that(
    breaker: CircuitBreaker,
    guarded: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    seen: list[type[BaseException]] = []

    async def session() -> AsyncIterator[int]:
        try:
            yield 1
        except BaseException as thrown:
            seen.append(type(thrown))
            raise

    stream: Any = breaker(session)() if guarded else session()
    await anext(stream)
    await stream.aclose()
    assert seen == [GeneratorExit]


async def test_an_async_generator_is_closed_with_its_guard(breaker: CircuitBreaker) -> None:
    closed: list[bool] = []

    @breaker
    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async with aclosing(endless()) as stream:  # type: ignore[type-var]  # the decorator keeps the annotated type
        await anext(stream)
    assert closed == [True]
    assert totals(breaker) == (0, 0, 1)


async def test_streams_are_never_slow(clock: FakeClock) -> None:
    settings = BreakerSettings(
        window_calls=1, minimum_calls=1, slow_call_duration=1, slow_call_rate_threshold=1.0
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    for _ in breaker(items)(3):
        clock.advance(60)
    async for _ in breaker(items_async)(3):
        clock.advance(60)
    assert breaker.state is CircuitState.CLOSED
    assert breaker.snapshot().counters.slow == 0


def test_a_fallback_gives_the_items_instead(breaker: CircuitBreaker) -> None:
    guarded = breaker(items, fallback=lambda count, fail_at: [count, fail_at])
    assert list(guarded(3, fail_at=0)) == [3, 0]
    breaker.force_open()
    assert list(guarded(4, fail_at=1)) == [4, 1]
    with without_fallbacks(), pytest.raises(CircuitOpenError):
        list(guarded(4, fail_at=1))


def test_a_fallback_does_not_mend_a_stream_that_has_begun(breaker: CircuitBreaker) -> None:
    stream = breaker(items, fallback=lambda *_, **__: [7])(3, fail_at=1)
    assert next(stream) == 0
    with pytest.raises(ConnectionError):
        next(stream)


def test_a_streams_fallback_that_fails_too_names_the_first_error(breaker: CircuitBreaker) -> None:
    def fallback(count: int, *, fail_at: int) -> Iterator[int]:
        yield count
        raise LookupError

    with pytest.raises(LookupError) as caught:
        list(breaker(items, fallback=fallback)(3, fail_at=0))
    assert isinstance(caught.value.__cause__, ConnectionError)


async def test_a_fallback_of_either_kind_gives_the_items_of_an_async_generator(
    breaker: CircuitBreaker,
) -> None:
    guarded = breaker(items_async, fallback=lambda count, fail_at: [count, fail_at])
    assert await gather(guarded(3, fail_at=0)) == [3, 0]
    later = breaker(items_async, fallback=lambda count, fail_at: items_async(fail_at + count))
    assert await gather(later(2, fail_at=0)) == [0, 1]
    with without_fallbacks(), pytest.raises(CircuitOpenError):
        await gather(later(2, fail_at=0))


async def test_a_fallback_does_not_mend_an_async_stream_that_has_begun(
    breaker: CircuitBreaker,
) -> None:
    stream = breaker(items_async, fallback=lambda *_, **__: [7])(3, fail_at=1)
    assert await anext(stream) == 0
    with pytest.raises(ConnectionError):
        await anext(stream)


async def test_an_async_streams_fallback_that_fails_too_names_the_first_error(
    breaker: CircuitBreaker,
) -> None:
    def fallback(count: int, *, fail_at: int) -> Iterator[int]:
        raise LookupError

    with pytest.raises(LookupError) as caught:
        await gather(breaker(items_async, fallback=fallback)(3, fail_at=0))
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_an_empty_stream_is_a_success(breaker: CircuitBreaker) -> None:
    assert list(breaker(items)(0)) == []
    assert totals(breaker) == (1, 0, 0)


def test_a_collected_generator_gives_its_place_back(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    stream = breaker(items)(3)
    next(stream)
    assert breaker.snapshot().probes_running == 1
    del stream
    gc.collect()
    assert breaker.snapshot().probes_running == 0
    assert breaker.state is CircuitState.HALF_OPEN


async def test_a_stream_through_a_call_is_guarded_while_it_is_read(breaker: CircuitBreaker) -> None:
    assert list(breaker.call(items, 2)) == [0, 1]
    assert await gather(breaker.call(items_async, 2)) == [0, 1]
    assert totals(breaker) == (2, 0, 0)
    with pytest.raises(ConnectionError):
        list(breaker.call(items, 2, fail_at=1))
    with pytest.raises(ConnectionError):
        await gather(breaker.call(items_async, 2, fail_at=1))
    assert totals(breaker) == (2, 2, 0)


async def test_a_stream_through_a_call_may_have_a_fallback(breaker: CircuitBreaker) -> None:
    given = breaker.call_with_fallback(items, 1, fail_at=0, fallback=lambda *_, **__: [7, 8])
    assert list(given) == [7, 8]
    given_async = breaker.call_with_fallback(
        items_async, 1, fail_at=0, fallback=lambda *_, **__: [7, 8]
    )
    assert await gather(given_async) == [7, 8]


async def test_partials_and_objects_that_make_streams_are_recognized(
    breaker: CircuitBreaker,
) -> None:
    class Pages:
        def __call__(self) -> Iterator[int]:
            yield from items(2)

    class AsyncPages:
        async def __call__(self) -> AsyncIterator[int]:
            async for item in items_async(2):
                yield item

    for stream in (functools.partial(items, 2), Pages()):
        assert inspect.isgeneratorfunction(breaker(stream))
        assert list(breaker.call(stream)) == [0, 1]
    for async_stream in (functools.partial(items_async, 2), AsyncPages()):
        assert inspect.isasyncgenfunction(breaker(async_stream))
        assert await gather(breaker.call(async_stream)) == [0, 1]
