"""Unary calls on an asyncio channel: what the user sees, and what the breaker counts."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.errors import CircuitOpenError
from fusewire.interceptors import AioRejectedCall, aio_interceptors
from fusewire.interceptors._classification import DEFAULT_OUTCOMES
from tests.support.grpc_calls import aio_seen, until
from tests.support.grpc_server import ECHO, ask
from tests.support.ports import reserve_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry
    from tests.support.grpc_server import EchoServer

pytestmark = pytest.mark.usefixtures("one_loop")

OK, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED
FALLBACKS = pytest.mark.parametrize("fallbacks", [None, {"*": b"instead"}])


def guarded_channel(target: str, registry: WatchedRegistry, **options: Any) -> Any:
    interceptors = aio_interceptors(registry=registry, **options)
    return grpc.aio.insecure_channel(target, interceptors=interceptors)


@pytest.fixture
async def bare(server: EchoServer) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield channel


@FALLBACKS
async def test_an_answered_call_is_seen_as_without_a_guard(
    server: EchoServer,
    bare: grpc.aio.Channel,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    fallbacks: Any,
) -> None:
    request = ask(reply="hello", trailing=(("why", "test"),))
    async with guarded_channel(server.target, registry, fallbacks=fallbacks) as channel:
        call, plain = channel.unary_unary(ECHO)(request), bare.unary_unary(ECHO)(request)
        assert await call == await plain == b"hello"
        assert await call.code() is grpc.StatusCode.OK
        assert await call.details() == await plain.details()
        assert await call.debug_error_string() == await plain.debug_error_string()
        assert await call.trailing_metadata() == await plain.trailing_metadata()
        assert await call.initial_metadata() == await plain.initial_metadata()
        await call.wait_for_connection()
        assert call.done()
        assert not call.cancelled()
        assert not call.cancel()
        assert await call == b"hello"
    assert breaker.outcomes == [OK]
    assert breaker.every_permit_settled_once()


@FALLBACKS
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
async def test_every_status_is_seen_as_without_a_guard(
    server: EchoServer,
    bare: grpc.aio.Channel,
    registry: WatchedRegistry,
    fallbacks: Any,
    code: grpc.StatusCode,
) -> None:
    breaker = registry.get(ECHO)
    if fallbacks and DEFAULT_OUTCOMES[code] is FAILURE:
        fallbacks = {"*": lambda request, error: 1 / 0}
    request = ask(code=code.name, details="as asked", trailing=(("why", "test"),))
    async with guarded_channel(server.target, registry, fallbacks=fallbacks) as channel:
        call, plain = channel.unary_unary(ECHO)(request), bare.unary_unary(ECHO)(request)
        with_guard = await aio_seen(call)
        assert with_guard == await aio_seen(plain)
        assert with_guard[1] is code
        assert await call.code() is code
        assert await call.details() == "as asked"
        assert await call.trailing_metadata() == await plain.trailing_metadata()
        assert await call.initial_metadata() == await plain.initial_metadata()
        assert (await call.debug_error_string() == "") is (await plain.debug_error_string() == "")
        assert call.done()
        assert call.cancelled() == plain.cancelled()
    assert breaker.outcomes == [DEFAULT_OUTCOMES[code]]
    assert breaker.every_permit_settled_once()


async def test_a_call_that_is_not_awaited_settles_when_it_ends(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    async with guarded_channel(server.target, registry) as channel:
        call = channel.unary_unary(ECHO)(ask(code="INTERNAL"))
        await until(lambda: breaker.outcomes == [FAILURE], "the call's outcome")
        assert call.done()


async def test_a_dead_server_is_seen_as_without_a_guard_until_the_circuit_opens(
    registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    target = f"127.0.0.1:{reserve_port()}"
    async with guarded_channel(target, registry) as channel:
        method = channel.unary_unary(ECHO)
        for _ in range(2):
            kind, code, *_ = await aio_seen(method(ask()))
            assert (kind, code) == ("AioRpcError", grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(CircuitOpenError):
            await method(ask())
    assert breaker.outcomes == [FAILURE, FAILURE]


async def test_a_hung_server_costs_the_deadline_and_counts(
    mortal: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    async with guarded_channel(mortal.target, registry) as channel:
        method = channel.unary_unary(ECHO)
        assert await method(ask()) == b"done"
        mortal.pause()
        result = await aio_seen(method(ask(), timeout=0.3))
        assert result[1] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert breaker.outcomes == [OK, FAILURE]


async def test_a_deadline_that_has_passed_already_does_not_count(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    async with guarded_channel(server.target, registry) as channel:
        for timeout in (0, -1):
            result = await aio_seen(channel.unary_unary(ECHO)(ask(delay=5), timeout=timeout))
            assert result[1] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert breaker.outcomes == [IGNORED, IGNORED]


@FALLBACKS
@pytest.mark.parametrize(
    "metadata", [(("Bad Key", "x"),), (("k", "\n"),), (("k", b"\xff"),), (("k-bin", "text"),)]
)
async def test_invalid_metadata_are_seen_as_without_a_guard_and_hold_no_permit(
    server: EchoServer,
    bare: grpc.aio.Channel,
    registry: WatchedRegistry,
    fallbacks: Any,
    metadata: Any,
) -> None:
    breaker = registry.get(ECHO)
    async with guarded_channel(server.target, registry, fallbacks=fallbacks) as channel:
        with_guard = await aio_seen(channel.unary_unary(ECHO)(ask(), metadata=metadata))
        assert with_guard == await aio_seen(bare.unary_unary(ECHO)(ask(), metadata=metadata))
    assert breaker.permits == []


@FALLBACKS
@pytest.mark.parametrize(
    "metadata",
    [
        (("a-b_c.9", "printable ~"), ("k", b"bytes"), ("k-bin", b"\x00\xff")),
        grpc.aio.Metadata(("a", "b")),
        ((b"in-bytes", "as grpcio 1.71 writes its own"), (b"k-bin", b"\x00\xff")),
    ],
)
async def test_valid_metadata_are_sent_guarded(
    server: EchoServer,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    fallbacks: Any,
    metadata: Any,
) -> None:
    async with guarded_channel(server.target, registry, fallbacks=fallbacks) as channel:
        assert await channel.unary_unary(ECHO)(ask(), metadata=metadata) == b"done"
    assert breaker.outcomes == [OK]
    key, value = next(iter(metadata))
    key = key.decode() if isinstance(key, bytes) else key
    assert [key, value] in server.seen()["metadata"]


def broken(_: Any) -> None:
    raise ValueError("broken")


@FALLBACKS
async def test_a_broken_deserializer_is_seen_as_without_a_guard(
    server: EchoServer,
    bare: grpc.aio.Channel,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    fallbacks: Any,
) -> None:
    side = {"response_deserializer": broken}
    async with guarded_channel(server.target, registry, fallbacks=fallbacks) as channel:
        with_guard = await aio_seen(channel.unary_unary(ECHO, **side)(ask()))
        assert with_guard == await aio_seen(bare.unary_unary(ECHO, **side)(ask()))
    assert breaker.outcomes == [OK]


async def test_a_broken_serializer_is_seen_as_without_a_guard(
    server: EchoServer, bare: grpc.aio.Channel, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    side = {"request_serializer": broken}
    async with guarded_channel(server.target, registry) as channel:
        with_guard = await aio_seen(channel.unary_unary(ECHO, **side)(ask()))
        assert with_guard == await aio_seen(bare.unary_unary(ECHO, **side)(ask()))
    assert breaker.every_permit_settled_once()


async def test_an_open_circuit_rejects_with_an_error_that_grpc_users_handle(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    breaker.open()
    registry.clock.pass_time(10)
    before = server.seen()["begun"]
    async with guarded_channel(server.target, registry) as channel:
        call = channel.unary_unary(ECHO)(ask())
        called = []
        call.add_done_callback(called.append)
        with pytest.raises(CircuitOpenError) as raised:
            await call
        error = raised.value
        assert isinstance(error, AioRejectedCall)
        assert isinstance(error, grpc.aio.AioRpcError)
        assert (error.name, error.state, error.retry_after) == (ECHO, "open", 20.0)
        assert await call.code() is error.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.details() == error.details()
        assert await call.trailing_metadata() == error.trailing_metadata()
        assert await call.initial_metadata() == error.initial_metadata()
        assert await call.debug_error_string() == error.debug_error_string()
        assert call.done()
        assert not call.cancelled()
        assert called == [call]
    assert server.seen()["begun"] == before
    assert breaker.outcomes == []


@FALLBACKS
async def test_a_call_whose_channel_is_closed_is_seen_as_without_a_guard(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, fallbacks: Any
) -> None:
    channel = guarded_channel(server.target, registry, fallbacks=fallbacks)
    bare = grpc.aio.insecure_channel(server.target)
    before = server.seen()["begun"]
    call, plain = channel.unary_unary(ECHO)(ask(delay=20)), bare.unary_unary(ECHO)(ask(delay=20))
    await until(lambda: server.seen()["begun"] == before + 2, "the calls' begin")
    await channel.close()
    await bare.close()
    assert call.cancelled() == plain.cancelled()
    assert await call.code() is await plain.code()
    for one in (call, plain):
        with pytest.raises(asyncio.CancelledError):
            await one
    assert breaker.outcomes == [IGNORED]
    assert breaker.every_permit_settled_once()


# An older grpcio (1.71) raises in __del__ of a call whose interceptors have raised.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@FALLBACKS
async def test_a_closed_channel_is_seen_as_without_a_guard(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, fallbacks: Any
) -> None:
    channel = guarded_channel(server.target, registry, fallbacks=fallbacks)
    await channel.close()
    with pytest.raises(grpc.aio.UsageError):
        await channel.unary_unary(ECHO)(ask())
    await asyncio.sleep(0)
    gc.collect()
    assert breaker.outcomes == [IGNORED]


@FALLBACKS
@pytest.mark.parametrize("code", ["OK", "INTERNAL"])
async def test_a_done_callback_that_raises_does_not_harm_the_count(
    server: EchoServer,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    fallbacks: Any,
    code: str,
) -> None:
    async with guarded_channel(server.target, registry, fallbacks=fallbacks) as channel:
        method = channel.unary_unary(ECHO)
        call = method(ask(delay=0.1, code=code))
        called = []
        call.add_done_callback(lambda _: 1 / 0)
        call.add_done_callback(called.append)
        await aio_seen(call)
        await until(lambda: len(breaker.outcomes) == 1, "the call's outcome")
        assert breaker.outcomes == [OK if code == "OK" else FAILURE]
        assert await method(ask()) == b"done"
    assert breaker.every_permit_settled_once()


class Wrapped(grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg] # not subscriptable at run time
    """Another interceptor's own call: what grpc.aio promises of calls, and no more."""

    _channel = None  # grpcio 1.71 asks for it when a channel is closed

    def __init__(self, call: Any) -> None:
        self.call = call

    def __await__(self) -> Any:
        return self.call.__await__()

    def cancel(self) -> bool:
        return self.call.cancel()

    def cancelled(self) -> bool:
        return self.call.cancelled()

    def done(self) -> bool:
        return self.call.done()

    def time_remaining(self) -> float | None:
        return self.call.time_remaining()

    def add_done_callback(self, callback: Any) -> None:
        self.call.add_done_callback(lambda _: callback(self))

    async def code(self) -> grpc.StatusCode:
        return await self.call.code()

    async def details(self) -> str:
        return await self.call.details()

    async def debug_error_string(self) -> str:
        return await self.call.debug_error_string()

    async def initial_metadata(self) -> Any:
        return await self.call.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await self.call.trailing_metadata()

    async def wait_for_connection(self) -> None:
        await self.call.wait_for_connection()


class Wrapping(grpc.aio.UnaryUnaryClientInterceptor):
    """Returns calls of its own, at once or when they are over."""

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        if self.waits:
            await call.code()
        return Wrapped(call)


@FALLBACKS
@pytest.mark.parametrize("waits", [False, True])
async def test_calls_of_another_interceptors_own_are_settled_as_grpcios_are(
    server: EchoServer,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    fallbacks: Any,
    waits: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    guards = aio_interceptors(registry=registry, fallbacks=fallbacks)
    interceptors: list[Any] = [*guards, Wrapping(waits=waits)]
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        method = channel.unary_unary(ECHO)
        assert await method(ask()) == b"done"
        await aio_seen(method(ask(code="INTERNAL")))
        await aio_seen(method(ask(code="NOT_FOUND")))
        cancelled = method(ask(delay=20))
        await until(lambda: len(breaker.permits) == 4, "the call's begin")
        cancelled.cancel()
        await until(breaker.every_permit_settled_once, "the permits")
    assert breaker.outcomes == [OK, FAILURE, OK, IGNORED]


@FALLBACKS
async def test_a_call_that_its_user_drops_leaves_no_permit_behind(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, fallbacks: Any
) -> None:
    async with guarded_channel(server.target, registry, fallbacks=fallbacks) as channel:
        method = channel.unary_unary(ECHO)
        method(ask(delay=0.3))
        await until(lambda: breaker.permits, "the call's begin")
        gc.collect()
        await until(breaker.every_permit_settled_once, "the permit")


async def test_there_is_one_object_for_each_shape() -> None:
    shapes = (
        grpc.aio.UnaryUnaryClientInterceptor,
        grpc.aio.UnaryStreamClientInterceptor,
        grpc.aio.StreamUnaryClientInterceptor,
        grpc.aio.StreamStreamClientInterceptor,
    )
    served = [[isinstance(one, shape) for shape in shapes] for one in aio_interceptors()]
    assert served == [[here == there for here in range(4)] for there in range(4)]
