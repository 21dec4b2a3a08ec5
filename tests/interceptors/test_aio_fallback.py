"""Fallbacks on an asyncio channel."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.errors import CircuitOpenError
from fusewire.interceptors import (
    Classification,
    FallbackDeclined,
    aio_interceptors,
    without_fallbacks,
)
from fusewire.operation import entered_operation, operation
from tests.support.grpc_calls import until
from tests.support.grpc_server import ECHO, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry
    from tests.support.grpc_server import EchoServer

    MethodWith = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("one_loop")

DOWN = ask(code="UNAVAILABLE", details="down", trailing=(("why", "test"),))
OPENED = pytest.mark.parametrize("opened", [False, True])


class Parking:
    """A fallback that takes part from the start, as store-and-forward does."""

    def __init__(self) -> None:
        self.asked = []
        self.prepared = []
        self.gate = None
        self.ended = []

    def prepare(self, call: Any) -> Any:
        self.prepared.append(call)
        return replace(call, metadata=(*call.metadata, ("key", "k-1")))

    async def reply(self, call: Any, request: bytes, error: Any) -> Any:
        self.asked.append((call, request, error))
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        return b"pending"

    def reply_sync(self, call: Any, request: bytes, error: Any) -> None:
        raise AssertionError("not on an asyncio channel")


@pytest.fixture
async def method_with(server: EchoServer, registry: WatchedRegistry) -> AsyncIterator[Any]:
    """Make guarded methods with the fallback given."""
    channels = []

    def make(fallback: Any, **options: Any) -> Any:
        interceptors = aio_interceptors(registry=registry, fallbacks={ECHO: fallback}, **options)
        channel = grpc.aio.insecure_channel(server.target, interceptors=interceptors)
        channels.append(channel)
        return channel.unary_unary(ECHO)

    yield make
    for channel in channels:
        await channel.close()


async def later(request: bytes, error: Any) -> Any:
    await asyncio.sleep(0)
    return b"instead"


@OPENED
@pytest.mark.parametrize("fallback", [b"instead", lambda request, error: b"instead", later])
async def test_a_rejection_or_a_failure_is_answered_by_the_fallback(
    method_with: MethodWith, breaker: WatchedBreaker, fallback: Any, opened: Any
) -> None:
    if opened:
        breaker.open()
    call = method_with(fallback)(DOWN)
    called = []
    call.add_done_callback(called.append)
    assert await call == b"instead"
    assert await call.code() is grpc.StatusCode.OK
    assert await call.details() == ""
    assert await call.debug_error_string() == ""
    assert list(await call.trailing_metadata()) == [("fusewire-fallback", ECHO)]
    assert list(await call.initial_metadata()) is not None
    await call.wait_for_connection()
    assert call.done()
    assert not call.cancelled()
    assert not call.cancel()
    assert called == [call]
    assert await call == b"instead"
    assert breaker.outcomes == ([] if opened else [Outcome.FAILURE])


@OPENED
async def test_the_code_can_be_asked_for_without_awaiting_the_call(
    method_with: MethodWith, breaker: WatchedBreaker, opened: Any
) -> None:
    if opened:
        breaker.open()
    assert await method_with(later)(DOWN).code() is grpc.StatusCode.OK


@OPENED
async def test_a_call_that_is_not_awaited_falls_back_all_the_same(
    method_with: MethodWith, breaker: WatchedBreaker, opened: Any
) -> None:
    if opened:
        breaker.open()
    parking = Parking()
    call = method_with(parking)(DOWN)
    await until(call.done, "the call's end")
    assert len(parking.asked) == 1
    assert await call == b"pending"


async def test_a_fallback_is_not_asked_for_what_does_not_count(method_with: MethodWith) -> None:
    parking = Parking()
    method = method_with(parking)
    for code in ("NOT_FOUND", "CANCELLED", "RESOURCE_EXHAUSTED"):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(ask(code=code))
        assert raised.value.code().name == code
    assert await method(ask()) == b"done"
    assert parking.asked == []


@OPENED
async def test_fallbacks_are_suppressed_for_the_calls_made_within_the_block(
    method_with: MethodWith, breaker: WatchedBreaker, opened: Any
) -> None:
    if opened:
        breaker.open()
    parking = Parking()
    method = method_with(parking)
    with without_fallbacks():
        inside = method(DOWN)
    outside = method(DOWN)
    with without_fallbacks():
        assert await outside == b"pending"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await inside
    assert isinstance(raised.value, CircuitOpenError) is opened
    assert len(parking.asked) == len(parking.prepared) == 1


def failing(error: Any) -> Any:
    async def fallback(request: bytes, failure: Any) -> None:
        raise error

    return fallback


@OPENED
async def test_a_fallback_that_fails_leaves_the_original_error(
    method_with: MethodWith, breaker: WatchedBreaker, caplog: pytest.LogCaptureFixture, opened: Any
) -> None:
    if opened:
        breaker.open()
    call = method_with(failing(OSError("no disk")))(DOWN)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = raised.value
    assert error.code() is await call.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == await call.details()
    assert error.trailing_metadata() == await call.trailing_metadata()
    assert isinstance(error, CircuitOpenError) is opened
    assert isinstance(error.__context__, OSError)
    assert "no disk" in error.__notes__[0]
    assert "the fallback of /test.Echo/Do failed" in caplog.text
    with pytest.raises(grpc.aio.AioRpcError):
        await call.wait_for_connection()


@OPENED
async def test_a_fallback_that_declines_may_add_to_the_errors_metadata(
    method_with: MethodWith, breaker: WatchedBreaker, caplog: pytest.LogCaptureFixture, opened: Any
) -> None:
    if opened:
        breaker.open()
        caplog.clear()  # of the opening
    declined = FallbackDeclined("not mine", metadata=(("parked", "no"),))
    call = method_with(failing(declined))(DOWN)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = raised.value
    assert isinstance(error.trailing_metadata(), grpc.aio.Metadata)
    assert error.trailing_metadata()["parked"] == "no"
    assert len(error.trailing_metadata()) > 1
    assert (await call.trailing_metadata())["parked"] == "no"
    assert isinstance(error, CircuitOpenError) is opened
    assert not hasattr(error, "__notes__")
    assert caplog.text == ""


async def test_a_call_fallback_prepares_the_call_and_is_given_what_it_prepared(
    server: EchoServer, method_with: MethodWith
) -> None:
    parking = Parking()
    method = method_with(parking, dependency="eu")
    assert await method(DOWN, timeout=5, metadata=(("mine", "x"),)) == b"pending"
    assert ["key", "k-1"] in server.seen()["metadata"]
    assert ["mine", "x"] in server.seen()["metadata"]
    told, request, error = parking.asked[0]
    assert parking.prepared == [replace(told, metadata=(("mine", "x"),))]
    assert (told.method, told.breaker, told.timeout) == (ECHO, "eu/test.Echo/Do", 5)
    assert told.metadata == (("mine", "x"), ("key", "k-1"))
    assert request is DOWN
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_whose_preparation_fails_goes_without_its_fallback(
    method_with: MethodWith, caplog: pytest.LogCaptureFixture
) -> None:
    parking = Parking()
    parking.prepare = lambda call: 1 / 0
    method = method_with(parking)
    assert await method(ask()) == b"done"
    with pytest.raises(grpc.aio.AioRpcError):
        await method(DOWN)
    assert parking.asked == []
    assert "goes without its fallback" in caplog.text


@OPENED
async def test_a_fallback_runs_in_the_callers_context(
    method_with: MethodWith, breaker: WatchedBreaker, opened: Any
) -> None:
    if opened:
        breaker.open()
    seen = []
    method = method_with(lambda *_: seen.append(entered_operation()) or b"x")
    with operation("op-1") as work:
        call = method(DOWN)
    await call
    assert seen == [work]


async def _by_call(call: Any) -> None:
    assert call.cancel()


async def _by_task(call: Any) -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await call

    waiting = asyncio.create_task(wait())
    await begun.wait()  # it goes on until the call makes it wait
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def _by_wait_for(call: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 0.05)


@OPENED
@pytest.mark.parametrize("cancel", [_by_call, _by_task, _by_wait_for])
async def test_cancelling_while_the_fallback_runs_ends_it(
    method_with: MethodWith, breaker: WatchedBreaker, opened: Any, cancel: Any
) -> None:
    if opened:
        breaker.open()
    parking = Parking()
    parking.gate = asyncio.Event()
    call = method_with(parking)(DOWN)
    called = []
    call.add_done_callback(called.append)
    await until(lambda: parking.asked, "the fallback's begin")
    assert not call.done()
    await cancel(call)
    await until(call.done, "the call's end")
    assert parking.ended == ["cancelled"]
    assert call.cancelled()
    assert called == [call]
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert await call.details() == "Locally cancelled by application!"
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_cancelling_asks_no_fallback_whatever_cancelling_means(
    method_with: MethodWith, breaker: WatchedBreaker
) -> None:
    parking = Parking()
    classify = Classification({grpc.StatusCode.CANCELLED: Outcome.FAILURE})
    call = method_with(parking, classify=classify)(ask(delay=20))
    await until(lambda: breaker.permits, "the call's begin")
    assert call.cancel()
    await until(call.done, "the call's end")
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(asyncio.CancelledError):
        await call
    assert breaker.outcomes == [Outcome.FAILURE]
    assert parking.asked == []


class _Elsewhere(grpc.aio.UnaryUnaryClientInterceptor):
    """An inner interceptor that makes the call in another context."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        made = continuation(details, request)
        return await asyncio.create_task(made, context=contextvars.Context())


async def test_a_fallback_runs_in_the_callers_context_wherever_the_call_was_made(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    seen: list[Any] = []
    fallbacks = {"*": lambda *_: seen.append(entered_operation()) or b"x"}
    interceptors = [*aio_interceptors(registry=registry, fallbacks=fallbacks), _Elsewhere()]
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        with operation("op-1") as work:
            call = channel.unary_unary(ECHO)(DOWN)
        await call
    assert seen == [work]


async def test_asking_for_the_code_and_giving_up_does_not_end_the_fallback(
    method_with: MethodWith,
) -> None:
    parking = Parking()
    parking.gate = asyncio.Event()
    call = method_with(parking)(DOWN)
    await until(lambda: parking.asked, "the fallback's begin")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call.code(), 0.01)
    parking.gate.set()
    assert await call == b"pending"


async def test_a_call_falls_back_when_the_server_dies_with_it_in_flight(
    mortal: EchoServer, registry: WatchedRegistry
) -> None:
    interceptors = aio_interceptors(registry=registry, fallbacks={"*": later})
    async with grpc.aio.insecure_channel(mortal.target, interceptors=interceptors) as channel:
        call = channel.unary_unary(ECHO)(ask(delay=20))
        await until(lambda: mortal.seen()["begun"] == 1, "the call's begin")
        mortal.kill()
        assert await call == b"instead"
    assert registry.get(ECHO).outcomes == [Outcome.FAILURE]


async def test_a_hung_servers_calls_fall_back_at_their_deadline(
    mortal: EchoServer, registry: WatchedRegistry
) -> None:
    interceptors = aio_interceptors(registry=registry, fallbacks={"*": later})
    async with grpc.aio.insecure_channel(mortal.target, interceptors=interceptors) as channel:
        method = channel.unary_unary(ECHO)
        await method(ask())
        mortal.pause()
        assert await method(ask(), timeout=0.3) == b"instead"


class _Outer(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor of the user's, as its documentation shows them."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    async def intercept_unary_unary(self, continuation: Any, details: str, request: bytes) -> Any:
        call = await continuation(details, request)
        call.add_done_callback(self.done.append)
        return call


@OPENED
async def test_outer_interceptors_may_watch_a_call_that_falls_back(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, opened: Any
) -> None:
    if opened:
        breaker.open()
    outer = _Outer()
    interceptors = [outer, *aio_interceptors(registry=registry, fallbacks={"*": later})]
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        assert await channel.unary_unary(ECHO)(DOWN) == b"instead"
    assert len(outer.done) == 1
