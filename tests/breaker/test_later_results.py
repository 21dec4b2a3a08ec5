"""Results that are not there yet: their calls are settled when they are, and not before."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Outcome,
)
from fusewire.operation import operation
from tests.support.circuits import half_open_circuit
from tests.support.later_results import ANSWERS, WithCallbacks, awaited, future_of, settled
from tests.support.ways_through import answer_async, fail_async, give_up, totals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from fusewire.testing import FakeClock


@awaited
async def test_what_fails_when_it_is_awaited_opens_the_circuit(
    breaker: CircuitBreaker, make: Any
) -> None:
    guarded = breaker(lambda: make(fail_async))
    for number in (1, 2):
        with pytest.raises(ConnectionError, match="down"):
            await guarded()
        await settled(breaker, number)
    assert totals(breaker) == (0, 2, 0, 0)
    with pytest.raises(CircuitOpenError):
        await guarded()


@awaited
@pytest.mark.parametrize("judged", [False, True])
async def test_what_answers_when_it_is_awaited_is_a_success_then(
    breaker: CircuitBreaker,
    clock: FakeClock,
    make: Any,
    judged: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    classify = (lambda _: Outcome.SUCCESS) if judged else None
    breaker.replace_settings(
        BreakerSettings(failure_threshold=2, half_open_max_calls=1, classify_result=classify)
    )
    half_open_circuit(breaker, clock)
    pending = breaker.call(lambda: make(answer_async))
    assert breaker.state is CircuitState.HALF_OPEN
    assert await pending in ANSWERS
    await settled(breaker, 3)
    assert breaker.state is CircuitState.CLOSED
    assert totals(breaker) == (1, 2, 0, 0)


@awaited
async def test_a_result_is_judged_when_it_is_there(clock: FakeClock, make: Any) -> None:
    asked = []

    def classify(result: object) -> Outcome:
        asked.append(result)
        return Outcome.FAILURE

    settings = BreakerSettings(classify_result=classify)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    answer = await breaker.call(lambda: make(answer_async))
    await settled(breaker, 1)
    assert asked == [answer]
    assert answer in ANSWERS
    assert totals(breaker) == (0, 1, 0, 0)


@awaited
async def test_a_fallback_does_not_look_at_a_result_before_it_is_there(
    clock: FakeClock, make: Any
) -> None:
    asked = []

    def classify(result: object) -> Outcome:
        asked.append(result)
        return Outcome.SUCCESS

    settings = BreakerSettings(classify_result=classify)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    pending = breaker.call_with_fallback(lambda: make(answer_async), fallback=lambda: "kept")
    assert asked == []
    assert await pending in ANSWERS
    await settled(breaker, 1)
    assert asked[0] in ANSWERS


async def test_an_object_that_reports_its_end_is_returned_as_it_is(breaker: CircuitBreaker) -> None:
    task = asyncio.ensure_future(answer_async())
    future = future_of("answer")
    call = WithCallbacks(answer_async)
    for given in (task, future, call):
        assert breaker.call(lambda given=given: given) is given
        assert breaker(lambda given=given: given, fallback=lambda: None)() is given
    await task
    assert await call == "answer"
    await settled(breaker, 6)
    assert totals(breaker) == (6, 0, 0, 0)


@pytest.mark.parametrize("proved", [False, True])
def test_a_future_of_threads_is_settled_when_it_is_done(
    breaker: CircuitBreaker,
    proved: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    if proved:
        breaker._unproven = 0
        breaker._refresh()
    pending: list[concurrent.futures.Future[Any]] = []

    def submit() -> concurrent.futures.Future[Any]:
        pending.append(concurrent.futures.Future())
        return pending[-1]

    guarded = breaker(submit)
    guarded(), guarded(), guarded()
    assert totals(breaker) == (0, 0, 0, 0)
    pending[0].set_result("answer")
    pending[1].set_exception(ConnectionError())
    assert pending[2].cancel()
    assert totals(breaker) == (1, 1, 1, 0)


def test_a_future_of_threads_may_be_a_probe(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open_circuit(breaker, clock)
    pending: concurrent.futures.Future[Any] = concurrent.futures.Future()
    breaker.call(lambda: pending)
    assert breaker.snapshot().probes_running == 1
    pending.set_exception(ConnectionError())
    assert breaker.state is CircuitState.OPEN


async def test_the_duration_of_a_call_is_the_time_until_its_result_is_there(
    clock: FakeClock,
) -> None:
    settings = BreakerSettings(slow_call_duration=1.0)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    breaker.call(lambda: future)
    clock.advance(1.5)
    future.set_result("answer")
    await settled(breaker, 1)
    assert breaker.snapshot().counters.slow == 1


class Stream(concurrent.futures.Future[Any]):
    """A stream that reports its end, as grpcio's do."""

    def __next__(self) -> str:
        return "message"


class AsyncStream(concurrent.futures.Future[Any]):
    def __aiter__(self) -> AsyncIterator[str]:
        raise AssertionError("not read")


@pytest.mark.parametrize("kind", [Stream, AsyncStream])
def test_a_stream_that_reports_its_end_is_never_slow(clock: FakeClock, kind: Any) -> None:
    settings = BreakerSettings(slow_call_duration=1.0, max_wait=1.0)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    first, second = kind(), kind()
    breaker.call(lambda: first)
    breaker.call(lambda: second)
    clock.advance(60.0)
    first.set_result(None)
    second.cancel()
    assert breaker.snapshot().counters.slow == 0
    assert totals(breaker) == (1, 0, 1, 0)


def test_asyncio_still_reports_errors_that_nobody_retrieved(breaker: CircuitBreaker) -> None:
    told = []

    async def begin() -> None:
        await asyncio.wait([breaker.call(lambda: asyncio.ensure_future(fail_async()))])

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        await begin()
        gc.collect()

    asyncio.run(run())
    assert totals(breaker) == (0, 1, 0, 0)
    assert [context["message"] for context in told] == ["Task exception was never retrieved"]


def test_a_failure_in_another_thread_is_reported_to_the_operation(breaker: CircuitBreaker) -> None:
    with operation("work") as work:
        pending: concurrent.futures.Future[Any] = concurrent.futures.Future()
        breaker.call(lambda: pending)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(pending.set_exception, ConnectionError()).result()
        assert work.failed == ["payments"]


def test_a_task_of_a_loop_that_is_closed_is_settled_at_once(breaker: CircuitBreaker) -> None:
    def work() -> asyncio.Task[str]:
        loop = asyncio.new_event_loop()
        task = loop.create_task(answer_async())
        loop.run_until_complete(task)
        loop.close()
        return task

    assert breaker.call(work).result() == "answer"
    assert totals(breaker) == (1, 0, 0, 0)


def test_an_end_that_cannot_be_read_is_logged_and_says_nothing(
    breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd:
        def cancelled(self) -> bool:
            raise LookupError

        def add_done_callback(self, callback: Callable[[Any], object]) -> None:
            callback(self)

    breaker.call(Odd)
    assert totals(breaker) == (0, 0, 1, 0)
    assert caplog.messages == ["the end of a call through circuit 'payments' is not counted"]


def test_a_call_that_is_no_future_is_settled_by_what_its_methods_return(
    breaker: CircuitBreaker,
) -> None:
    class Call:
        """A call of grpcio: like a future, but of a class of its own."""

        def __init__(self, error: Exception | None) -> None:
            self._error = error

        def cancelled(self) -> bool:
            return False

        def exception(self) -> Exception | None:
            return self._error

        def result(self) -> str:
            return "answer"

        def add_done_callback(self, callback: Callable[[Any], object]) -> None:
            callback(self)

    breaker.call(Call, None)
    breaker.call(Call, ConnectionError())
    assert totals(breaker) == (1, 1, 0, 0)


def test_an_end_that_is_reported_twice_counts_once(breaker: CircuitBreaker) -> None:
    class Eager(concurrent.futures.Future[Any]):
        def add_done_callback(self, fn: Callable[[Any], object]) -> None:
            super().add_done_callback(fn)
            super().add_done_callback(fn)

    future = Eager()
    breaker.call(lambda: future)
    future.set_exception(ConnectionError())
    assert totals(breaker) == (0, 1, 0, 0)


async def test_a_call_that_is_cancelled_says_nothing(breaker: CircuitBreaker) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    task = breaker.call(lambda: asyncio.ensure_future(hang()))
    call = breaker.call(WithCallbacks, hang)
    await asyncio.sleep(0)
    task.cancel()
    call._task.cancel()
    await asyncio.wait([task, call._task])
    await settled(breaker, 2)
    assert totals(breaker) == (0, 0, 2, 0)


async def test_a_call_that_its_server_cancelled_is_a_failure(breaker: CircuitBreaker) -> None:
    class CancelledByServer(WithCallbacks):
        """As of grpc.aio: ``cancelled()`` does not say by whom, and awaiting it does."""

        def cancelled(self) -> bool:
            return True

    call = breaker.call(CancelledByServer, fail_async)
    with pytest.raises(ConnectionError):
        await call
    await settled(breaker, 1)
    assert totals(breaker) == (0, 1, 0, 0)


class Messages:
    """As a response stream of grpc.aio: no await reports its end."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def cancelled(self) -> bool:
        return False

    async def wait_for_connection(self) -> None:
        await asyncio.sleep(0)
        if self._error is not None:
            raise self._error

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        asyncio.get_running_loop().call_soon(callback, self)


async def test_a_stream_of_a_call_is_settled_by_its_status_and_not_read(
    breaker: CircuitBreaker,
) -> None:
    breaker.call(Messages, None)
    breaker.call(Messages, ConnectionError())
    await settled(breaker, 2)
    assert totals(breaker) == (1, 1, 0, 0)


async def test_a_stream_is_no_success_of_a_call_whose_inner_call_had_nothing_to_say(
    breaker: CircuitBreaker,
) -> None:
    def begin() -> Messages:
        with pytest.raises(KeyboardInterrupt):
            breaker.call(give_up)
        return Messages(None)

    breaker.call(begin)
    await settled(breaker, 1)
    assert totals(breaker) == (0, 0, 1, 0)


def test_a_call_without_a_known_end_before_its_loop_ends_says_nothing(
    breaker: CircuitBreaker,
) -> None:
    class Silent(WithCallbacks):
        def __await__(self) -> Generator[Any, Any, Any]:
            return asyncio.Event().wait().__await__()

    async def begin() -> None:
        call = breaker.call(Silent, answer_async)
        await call._task
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(begin())
    assert totals(breaker) == (0, 0, 1, 0)


async def test_a_call_whose_end_only_the_breaker_waits_for_is_not_collected(
    breaker: CircuitBreaker,
) -> None:
    ends: list[weakref.ref[asyncio.Future[str]]] = []

    class Forgotten(WithCallbacks):
        """Nothing but who awaits it keeps it alive."""

        def __await__(self) -> Generator[Any, Any, Any]:
            end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            ends.append(weakref.ref(end))
            return end.__await__()

    breaker.call(Forgotten, answer_async)
    while not ends:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
    gc.collect()
    end = ends[0]()
    assert end is not None
    end.set_result("answer")
    await settled(breaker, 1)
    assert totals(breaker) == (1, 0, 0, 0)
