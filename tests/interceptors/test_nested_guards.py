"""A method that is guarded twice in one call path is one call, on both channels, in all shapes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitBreaker, CircuitState
from fusewire.interceptors import aio_interceptors, guard
from fusewire.testing import FakeClock
from tests.support.grpc_calls import until
from tests.support.grpc_server import ECHO, STREAM, ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from tests.support.grpc_server import EchoServer

SETTINGS = BreakerSettings(failure_threshold=2, recovery_timeout=10.0, half_open_max_calls=1)
FALLBACKS = pytest.mark.parametrize("fallbacks", [None, {"*": b"instead"}])
OK, DOWN = ask(), ask(code="UNAVAILABLE")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def registry(clock: FakeClock) -> BreakerRegistry:
    return BreakerRegistry(SETTINGS, clock=clock)


def counted(breaker: CircuitBreaker) -> tuple[int, int, int]:
    counters = breaker.snapshot().counters
    return counters.succeeded, counters.failed, counters.ignored


def total(breaker: CircuitBreaker) -> int:
    return sum(counted(breaker))


def half_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    while breaker.state is CircuitState.CLOSED:
        breaker.acquire().failure()
    clock.advance(10.0)


def sync_channel(target: str, registry: BreakerRegistry, fallbacks: Any = None) -> grpc.Channel:
    inner = guard(grpc.insecure_channel(target), registry=registry)
    return guard(inner, registry=registry, fallbacks=fallbacks)


def aio_channel(target: str, registry: BreakerRegistry, fallbacks: Any = None) -> grpc.aio.Channel:
    interceptors = [
        *aio_interceptors(registry=registry, fallbacks=fallbacks),
        *aio_interceptors(registry=registry),
    ]
    return grpc.aio.insecure_channel(target, interceptors=interceptors)


@FALLBACKS
@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_channel_that_is_guarded_twice_counts_a_call_once(
    server: EchoServer, registry: BreakerRegistry, clock: FakeClock, way: Way, fallbacks: Any
) -> None:
    breaker = registry.get(way.path)
    with sync_channel(server.target, registry, fallbacks) as channel:
        finish(way, channel, DOWN)
        wait_until(lambda: total(breaker) == 1, "the failure to be counted")
        assert counted(breaker) == (0, 1, 0)
        assert breaker.state is CircuitState.CLOSED
        finish(way, channel, OK)
        wait_until(lambda: total(breaker) == 2, "the success to be counted")
        assert counted(breaker) == (1, 1, 0)
        half_open(breaker, clock)
        finish(way, channel, OK)
        wait_until(lambda: breaker.state is CircuitState.CLOSED, "the circuit to close")
        assert breaker.snapshot().counters.late == 0


@FALLBACKS
@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_two_sets_of_interceptors_count_a_call_once(
    server: EchoServer, registry: BreakerRegistry, clock: FakeClock, way: Way, fallbacks: Any
) -> None:
    breaker = registry.get(way.path)
    async with aio_channel(server.target, registry, fallbacks) as channel:
        await aio_finish(way, channel, DOWN)
        await until(lambda: total(breaker) == 1, "the failure to be counted")
        assert counted(breaker) == (0, 1, 0)
        assert breaker.state is CircuitState.CLOSED
        await aio_finish(way, channel, OK)
        await until(lambda: total(breaker) == 2, "the success to be counted")
        assert counted(breaker) == (1, 1, 0)
        half_open(breaker, clock)
        await aio_finish(way, channel, OK)
        await until(lambda: breaker.state is CircuitState.CLOSED, "the circuit to close")
        assert breaker.snapshot().counters.late == 0


@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_function_with_the_methods_own_breaker_is_one_call_with_the_channels(
    server: EchoServer, registry: BreakerRegistry, clock: FakeClock, way: Way
) -> None:
    breaker = registry.get(way.path)
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:

        @breaker
        def call(request: bytes) -> Any:
            return finish(way, channel, request)

        call(DOWN)
        wait_until(lambda: total(breaker) == 1, "the failure to be counted")
        assert counted(breaker) == (0, 1, 0)
        half_open(breaker, clock)
        call(OK)
        wait_until(lambda: breaker.state is CircuitState.CLOSED, "the circuit to close")


@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_a_coroutine_with_the_methods_own_breaker_is_one_call_with_the_channels(
    server: EchoServer, registry: BreakerRegistry, clock: FakeClock, way: Way
) -> None:
    breaker = registry.get(way.path)
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:

        @breaker
        async def call(request: bytes) -> Any:
            return await aio_finish(way, channel, request)

        await call(DOWN)
        await until(lambda: total(breaker) == 1, "the failure to be counted")
        assert counted(breaker) == (0, 1, 0)
        half_open(breaker, clock)
        await call(OK)
        await until(lambda: breaker.state is CircuitState.CLOSED, "the circuit to close")


def test_a_future_that_a_decorated_function_returns_is_one_call(
    server: EchoServer, registry: BreakerRegistry, clock: FakeClock
) -> None:
    breaker = registry.get(ECHO)
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        method = channel.unary_unary(ECHO)
        call = breaker(method.future)
        with pytest.raises(grpc.RpcError):
            call(DOWN).result(20)
        wait_until(lambda: total(breaker) == 1, "the failure to be counted")
        half_open(breaker, clock)
        assert call(OK).result(20) == b"done"
        wait_until(lambda: breaker.state is CircuitState.CLOSED, "the circuit to close")
        assert counted(breaker) == (1, 2, 0)


@pytest.mark.parametrize("path", [ECHO, STREAM])
async def test_a_call_that_a_decorated_function_returns_is_one_call(
    server: EchoServer, registry: BreakerRegistry, clock: FakeClock, path: str
) -> None:
    breaker = registry.get(path)
    interceptors = aio_interceptors(registry=registry)

    async def read(call: Any) -> Any:
        return await call if path == ECHO else [message async for message in call]

    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        call = breaker(channel.unary_unary(path) if path == ECHO else channel.unary_stream(path))
        with pytest.raises(grpc.aio.AioRpcError):
            await read(call(DOWN))
        await until(lambda: total(breaker) == 1, "the failure to be counted")
        half_open(breaker, clock)
        await read(call(OK))
        await until(lambda: breaker.state is CircuitState.CLOSED, "the circuit to close")
        assert counted(breaker) == (1, 2, 0)


@pytest.mark.parametrize("way", [way for way in SYNC_WAYS + AIO_WAYS if not way.blocks], ids=str)
async def test_a_call_of_a_bare_channel_is_settled_by_its_end(
    server: EchoServer, registry: BreakerRegistry, way: Way
) -> None:
    breaker = registry.get(way.path)

    async def use(request: bytes) -> None:
        if not way.asynchronous:
            with grpc.insecure_channel(server.target) as channel:
                made = Made(channel, way, breaker)
                await asyncio.to_thread(finish, way, made, request)
                wait_until(lambda: total(breaker) == made.before + 1, "the call to be counted")
            return
        async with grpc.aio.insecure_channel(server.target) as aio:
            made = Made(aio, way, breaker)
            await aio_finish(way, made, request)
            await until(lambda: total(breaker) == made.before + 1, "the call to be counted")

    await use(DOWN)
    assert counted(breaker) == (0, 1, 0)
    await use(OK)
    assert counted(breaker) == (1, 1, 0)


class Made:
    """A channel whose one method is decorated."""

    def __init__(self, channel: Any, way: Way, breaker: CircuitBreaker) -> None:
        self._channel = channel
        self._way = way
        self._breaker = breaker
        self.before = total(breaker)

    def __getattr__(self, shape: str) -> Any:
        def make(path: str, **options: Any) -> Any:
            method = getattr(self._channel, shape)(path, **options)
            if self._way.style != "future":
                return self._breaker(method)
            return Futures(self._breaker(method.future))

        return make


class Futures:
    """A method of futures."""

    def __init__(self, future: Any) -> None:
        self.future = future


def test_a_rejection_of_the_outer_guard_reaches_the_user_once(
    server: EchoServer, registry: BreakerRegistry
) -> None:
    breaker = registry.get(ECHO)
    breaker.force_open()
    with sync_channel(server.target, registry) as channel:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(ECHO)(OK)
        assert breaker.snapshot().counters.rejected == 1


def test_guards_with_breakers_of_their_own_count_each_for_itself(
    server: EchoServer, registry: BreakerRegistry
) -> None:
    inner = guard(grpc.insecure_channel(server.target), registry=registry, dependency="inner")
    outer = guard(inner, registry=registry, dependency="outer")
    with outer as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(ECHO)(DOWN)
    for name in ("inner", "outer"):
        assert counted(registry.get(name + ECHO)) == (0, 1, 0)
