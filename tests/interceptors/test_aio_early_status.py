"""Servers that end an asyncio call while requests are still written to it.

grpcio then says that the call is over before it knows the server's status, and changes it later.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerSettings, Outcome
from fusewire.interceptors import FallbackDeclined, aio_interceptors
from tests.support.grpc_calls import until
from tests.support.grpc_guard import WatchedRegistry
from tests.support.grpc_server import CHAT, GATHER, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.grpc_server import EchoServer

pytestmark = pytest.mark.usefixtures("one_loop")

OK, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED
CALLS = 10  # which status comes first is chance
NOWHERE = "127.0.0.1:1"
LOST = (grpc.StatusCode.INTERNAL, "Internal error from Core")
DOWN = (grpc.StatusCode.UNAVAILABLE, "down")
CODES = pytest.mark.parametrize(
    ("code", "outcome"), [("UNAVAILABLE", FAILURE), ("NOT_FOUND", OK), ("OK", OK)]
)


def _decline(_request: object, _error: object) -> None:
    raise FallbackDeclined


GUARDS = pytest.mark.parametrize(
    "options",
    [{}, {"fallbacks": {"*": _decline}}],
    ids=["plain", "declining"],
)


@pytest.fixture
def tireless() -> WatchedRegistry:
    """Breakers that count and never open."""
    return WatchedRegistry(BreakerSettings(failure_threshold=1_000_000))


def channel_to(target: str, registry: WatchedRegistry, *inner: Any, **options: Any) -> Any:
    interceptors = [*aio_interceptors(registry=registry, **options), *inner]
    return grpc.aio.insecure_channel(target, interceptors=interceptors)


async def many(order: bytes) -> AsyncIterator[bytes]:
    yield order
    for _ in range(200):
        yield b"x" * 1000


async def seen_of(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return error.code().name


@GUARDS
@CODES
async def test_a_status_that_comes_while_requests_are_written_is_counted_for_what_it_is(
    server: EchoServer, tireless: WatchedRegistry, options: Any, code: str, outcome: Outcome
) -> None:
    breaker = tireless.get(GATHER)
    async with channel_to(server.target, tireless, **options) as channel:
        for _ in range(CALLS):
            await seen_of(channel.stream_unary(GATHER)(many(ask(code=code, patience=False))))
        await until(breaker.every_permit_settled_once, "the permits")
    assert breaker.outcomes == [outcome] * CALLS


async def _await(call: Any) -> Any:
    return await call


async def _ask_for_the_code_first(call: Any) -> Any:
    assert await call.code() is grpc.StatusCode.OK
    return await call


async def _look_on(call: Any) -> Any:
    await until(call.done, "the call's end")
    assert await call.code() is grpc.StatusCode.OK
    return await call


@pytest.mark.parametrize("finish", [_await, _ask_for_the_code_first, _look_on])
async def test_a_status_that_comes_while_requests_are_written_gets_its_fallback(
    server: EchoServer, tireless: WatchedRegistry, finish: Callable[[Any], Any]
) -> None:
    async with channel_to(server.target, tireless, fallbacks={"*": b"instead"}) as channel:
        for _ in range(CALLS):
            ended: list[Any] = []
            call = channel.stream_unary(GATHER)(many(ask(code="UNAVAILABLE", patience=False)))
            call.add_done_callback(ended.append)
            assert await finish(call) == b"instead"
            assert ended == [call]
            assert list(await call.trailing_metadata()) == [("fusewire-fallback", GATHER)]
    assert tireless.get(GATHER).outcomes == [FAILURE] * CALLS


async def test_probes_that_are_answered_while_requests_are_written_close_the_circuit(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    breaker = registry.get(GATHER)
    async with channel_to(server.target, registry) as channel:
        for _ in range(CALLS):
            breaker.open()
            registry.clock.pass_time(31)
            order = ask(code="NOT_FOUND", patience=False)
            await seen_of(channel.stream_unary(GATHER)(many(order)))
            await until(lambda: breaker.state == "closed", "the circuit's closing")


async def _read_late(call: Any) -> None:
    for _ in range(2):
        assert await call.read() == b"done"
        await asyncio.sleep(0.02)
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ({}, FAILURE),
        ({"fallbacks": {"*": _decline}}, FAILURE),
        ({"streams": "first_message"}, OK),
    ],
    ids=["plain", "declining", "first_message"],
)
async def test_a_streams_status_that_comes_while_requests_are_written_is_counted_once_it_is_read(
    server: EchoServer, tireless: WatchedRegistry, options: Any, outcome: Outcome
) -> None:
    breaker = tireless.get(CHAT)
    order = ask(code="UNAVAILABLE", messages=2, patience=False)
    async with channel_to(server.target, tireless, **options) as channel:
        for _ in range(CALLS):
            call = channel.stream_stream(CHAT)(many(order))
            await asyncio.sleep(0.02)  # nobody reads, and it ends by what cannot be written
            await _read_late(call)
            assert call.done()
        await until(breaker.every_permit_settled_once, "the permits")
    assert breaker.outcomes == [outcome] * CALLS


class _Ended(grpc.aio.StreamUnaryCall[Any, Any]):
    """A call that reports its end with a status that may change."""

    _channel = None

    def __init__(self, *, known_later: bool) -> None:
        self.status = LOST
        self.known = asyncio.Event()
        if known_later:  # like grpcio's own calls, whose task ends then
            self._call_response = asyncio.ensure_future(self.known.wait())

    def __await__(self) -> Any:
        yield from asyncio.ensure_future(self.known.wait()).__await__()
        raise self.error()

    def error(self) -> grpc.aio.AioRpcError:
        code, details = self.status
        return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)

    def end(self, status: tuple[grpc.StatusCode, str]) -> None:
        self.status = status
        self.known.set()

    async def code(self) -> grpc.StatusCode:
        return self.status[0]

    async def details(self) -> str:
        return self.status[1]

    async def debug_error_string(self) -> str:
        return ""

    async def initial_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def wait_for_connection(self) -> None:
        raise self.error()

    async def write(self, request: Any) -> None:
        raise self.error()

    async def done_writing(self) -> None:
        raise self.error()

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def time_remaining(self) -> None:
        return None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)


class _Instead(grpc.aio.StreamUnaryClientInterceptor):
    """Makes calls of its own in place of the channel's."""

    def __init__(self, *, known_later: bool) -> None:
        self._known_later = known_later
        self.calls: list[_Ended] = []

    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        self.calls.append(_Ended(known_later=self._known_later))
        return self.calls[-1]


LATER = pytest.mark.parametrize("known_later", [True, False], ids=["task", "no task"])


@LATER
@GUARDS
async def test_a_status_that_may_change_is_not_settled_before_it_is_known(
    tireless: WatchedRegistry, options: Any, *, known_later: bool
) -> None:
    inner = _Instead(known_later=known_later)
    breaker = tireless.get(GATHER)
    async with channel_to(NOWHERE, tireless, inner, **options) as channel:
        call = channel.stream_unary(GATHER)(many(b""))
        await until(lambda: inner.calls, "the call")
        await asyncio.sleep(0.02)
        assert breaker.outcomes == []
        inner.calls[0].end(DOWN)
        assert await seen_of(call) == "UNAVAILABLE"
        await until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == [FAILURE]


@LATER
@GUARDS
async def test_a_status_that_stays_lost_says_nothing_about_the_server(
    tireless: WatchedRegistry, options: Any, *, known_later: bool
) -> None:
    inner = _Instead(known_later=known_later)
    breaker = tireless.get(GATHER)
    async with channel_to(NOWHERE, tireless, inner, **options) as channel:
        call = channel.stream_unary(GATHER)(many(b""))
        await until(lambda: inner.calls, "the call")
        if known_later:
            inner.calls[0].end(LOST)
        await until(breaker.every_permit_settled_once, "the permit")
        await until(call.done, "the call's end")
        assert await call.code() is grpc.StatusCode.INTERNAL
    assert breaker.outcomes == [IGNORED]


async def test_who_gives_up_a_call_whose_status_is_not_known_yet_gets_no_fallback(
    tireless: WatchedRegistry,
) -> None:
    asked: list[object] = []
    inner = _Instead(known_later=True)
    breaker = tireless.get(GATHER)
    options = {"classify": lambda _end: FAILURE, "fallbacks": {"*": lambda *why: asked.append(why)}}
    async with channel_to(NOWHERE, tireless, inner, **options) as channel:
        call = channel.stream_unary(GATHER)(many(b""))
        await until(lambda: inner.calls, "the call")
        inner.calls[0]._call_response.cancel()  # as a cancelled await does
        await until(call.done, "the call's end")
        await until(breaker.every_permit_settled_once, "the permit")
    assert asked == []


@LATER
@pytest.mark.parametrize("options", [{}, {"fallbacks": {"*": b"instead"}}], ids=["plain", "falls"])
async def test_a_permit_comes_back_when_the_loop_is_closed_before_the_status_is_known(
    tireless: WatchedRegistry, options: Any, *, known_later: bool
) -> None:
    inner = _Instead(known_later=known_later)

    async def leave() -> None:
        channel = channel_to(NOWHERE, tireless, inner, **options)
        call = channel.stream_unary(GATHER)(many(b""))
        await until(lambda: inner.calls, "the call")
        await asyncio.sleep(0)
        del call
        await channel.close()

    def close_the_loop() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _loop, _context: None)  # of tasks that never end
        loop.run_until_complete(leave())
        inner.calls.clear()
        loop.close()

    await asyncio.to_thread(close_the_loop)
    gc.collect()
    assert tireless.get(GATHER).outcomes == [IGNORED]
