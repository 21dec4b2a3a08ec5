"""A call that its caller gives up after `max_wait` seconds is a failure."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerSettings, CircuitBreaker, CircuitState, Outcome
from fusewire.operation import operation
from tests.support.call_errors import known
from tests.support.circuits import half_open_circuit
from tests.support.later_results import WithCallbacks, settled
from tests.support.ways_through import each_async_lender, totals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fusewire.testing import FakeClock

SETTINGS = BreakerSettings(failure_threshold=3, half_open_max_calls=1, max_wait=2.0)


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker("payments", settings=SETTINGS, clock=clock)


async def given_up(call: Any, clock: FakeClock, seconds: float) -> None:
    """Begin `call`, let so many seconds pass, and cancel it."""
    task = asyncio.ensure_future(call)
    for _ in range(3):
        await asyncio.sleep(0)
    clock.advance(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def hang() -> None:
    await asyncio.Event().wait()


@each_async_lender
async def test_a_call_that_is_cancelled_after_that_long_is_a_failure(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any
) -> None:
    await given_up(lend(breaker, hang), clock, 2.0)
    assert totals(breaker) == (0, 1, 0, 0)
    await given_up(lend(breaker, hang), clock, 60.0)
    assert totals(breaker) == (0, 2, 0, 0)


@each_async_lender
async def test_a_call_that_is_cancelled_before_says_nothing(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any
) -> None:
    await given_up(lend(breaker, hang), clock, 1.75)
    assert totals(breaker) == (0, 0, 1, 0)


@each_async_lender
async def test_without_the_setting_no_cancellation_counts(clock: FakeClock, lend: Any) -> None:
    breaker = CircuitBreaker("payments", clock=clock)
    await given_up(lend(breaker, hang), clock, 1e9)
    assert totals(breaker) == (0, 0, 1, 0)


@each_async_lender
async def test_a_circuit_that_is_quiet_counts_them_too(
    breaker: CircuitBreaker, clock: FakeClock, lend: Any
) -> None:
    breaker._unproven = 0
    breaker._refresh()
    await given_up(lend(breaker, hang), clock, 2.0)
    assert totals(breaker) == (0, 1, 0, 0)


async def test_a_dependency_that_hangs_opens_the_circuit(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", settings=SETTINGS, clock=clock)
    guarded = breaker(hang)

    async def wait() -> None:
        asyncio.get_running_loop().call_later(0.01, clock.advance, 3.0)
        await asyncio.wait_for(guarded(), 0.05)

    with operation("work") as work:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await wait()
        assert work.failed == ["payments"]
    assert breaker.state is CircuitState.OPEN


async def test_a_probe_that_hangs_opens_it_again(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open_circuit(breaker, clock)
    await given_up(breaker(hang)(), clock, 2.0)
    assert breaker.state is CircuitState.OPEN


async def test_a_result_that_is_cancelled_after_that_long_is_a_failure(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.replace_settings(BreakerSettings(failure_threshold=99, max_wait=2.0))
    await given_up(breaker.call(lambda: asyncio.ensure_future(hang())), clock, 2.0)
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    breaker.call(lambda: future)
    clock.advance(2.0)
    future.cancel()
    await given_up(breaker.call(WithCallbacks, hang), clock, 2.0)
    await settled(breaker, 3)
    assert totals(breaker) == (0, 3, 0, 0)


def test_such_a_result_has_a_cancellation_as_its_error(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    breaker.call(lambda: future)
    clock.advance(2.0)
    future.cancel()
    assert known(breaker) == ("asyncio.exceptions.CancelledError", "")


async def test_with_judged_results_too(clock: FakeClock) -> None:
    settings = BreakerSettings(max_wait=2.0, classify_result=lambda _: Outcome.SUCCESS)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    await given_up(breaker(hang)(), clock, 2.0)
    assert totals(breaker) == (0, 1, 0, 0)


@pytest.mark.parametrize("error", [GeneratorExit, KeyboardInterrupt, SystemExit])
def test_other_ends_of_a_call_say_nothing(
    breaker: CircuitBreaker, clock: FakeClock, error: type[BaseException]
) -> None:
    def wait() -> None:
        clock.advance(60.0)
        raise error

    for guarded in (breaker(wait), lambda: breaker.call(wait)):
        with pytest.raises(error):
            guarded()
    assert totals(breaker) == (0, 0, 2, 0)


@pytest.mark.parametrize("proved", [False, True])
def test_a_cancellation_of_threads_counts(
    breaker: CircuitBreaker, clock: FakeClock, *, proved: bool
) -> None:
    if proved:
        breaker._unproven = 0
        breaker._refresh()

    def wait(seconds: float) -> None:
        clock.advance(seconds)
        raise concurrent.futures.CancelledError

    for seconds in (1.75, 2.0):
        with pytest.raises(concurrent.futures.CancelledError):
            breaker.call(wait, seconds)
    assert totals(breaker) == (0, 1, 1, 0)


def test_a_probe_of_threads_that_hangs_opens_it_again(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    def wait() -> None:
        clock.advance(2.0)
        raise concurrent.futures.CancelledError

    half_open_circuit(breaker, clock)
    with pytest.raises(concurrent.futures.CancelledError):
        breaker.call(wait)
    assert breaker.state is CircuitState.OPEN


def test_a_judgement_without_a_start_says_nothing_of_a_cancellation(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    clock.advance(100.0)
    assert breaker.classify(asyncio.CancelledError()) is Outcome.IGNORED
    assert breaker.classify(asyncio.CancelledError(), clock.now - 2.0) is Outcome.FAILURE
    assert breaker.classify(ConnectionError()) is Outcome.FAILURE


# Streams: what counts is the wait for one item.


async def test_a_stream_whose_item_does_not_come_is_a_failure(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    @breaker
    async def pages(waits: int) -> AsyncIterator[int]:
        for page in range(waits):
            yield page
        await hang()

    async def read(waits: int) -> None:
        async for _ in pages(waits):
            clock.advance(60.0)  # the reader's time

    await given_up(read(0), clock, 2.0)
    await given_up(read(2), clock, 2.0)
    assert totals(breaker) == (0, 2, 0, 0)
    await given_up(read(2), clock, 1.75)
    assert totals(breaker) == (0, 2, 1, 0)


async def test_a_stream_whose_reader_is_cancelled_says_nothing(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    @breaker
    async def pages() -> AsyncIterator[int]:
        yield 1

    stream: Any = pages()
    await anext(stream)
    clock.advance(60.0)
    with pytest.raises(asyncio.CancelledError):
        await stream.athrow(asyncio.CancelledError())
    assert totals(breaker) == (0, 0, 1, 0)


def test_the_wait_for_an_item_of_a_generator_counts(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    @breaker
    def pages(seconds: float) -> Iterator[int]:
        yield 1
        clock.advance(seconds)
        raise concurrent.futures.CancelledError

    def read(seconds: float) -> None:
        for _ in pages(seconds):
            clock.advance(60.0)  # the reader's time

    for seconds in (1.75, 2.0):
        with pytest.raises(concurrent.futures.CancelledError):
            read(seconds)
    assert totals(breaker) == (0, 1, 1, 0)


def test_what_is_thrown_into_a_generator_is_not_waited_for(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    @breaker
    def pages() -> Iterator[int]:
        yield 1

    stream: Any = pages()
    next(stream)
    clock.advance(60.0)
    with pytest.raises(concurrent.futures.CancelledError):
        stream.throw(concurrent.futures.CancelledError())
    assert totals(breaker) == (0, 0, 1, 0)
