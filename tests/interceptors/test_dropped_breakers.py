"""A registry may drop a breaker; channels then use the one that it has now, as all others do."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitBreaker
from fusewire.errors import CircuitOpenError
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_server import ECHO, GATHER, EchoServer, ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from collections.abc import Callable

DOWN = ask(code="UNAVAILABLE", messages=0)


def _rejected(registry: BreakerRegistry, name: str) -> int:
    return registry.get(name).snapshot().counters.rejected


@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_channel_uses_the_breaker_that_the_registry_has_now(way: Way, server: EchoServer) -> None:
    registry = BreakerRegistry()
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        finish(way, channel, ask())
        registry.remove(way.path)
        registry.get(way.path).force_open()
        finish(way, channel, ask())
    assert _rejected(registry, way.path) == 1


@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_an_asyncio_channel_uses_the_breaker_that_the_registry_has_now(
    way: Way, server: EchoServer
) -> None:
    registry = BreakerRegistry()
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        await aio_finish(way, channel, ask())
        registry.remove(way.path)
        registry.get(way.path).force_open()
        await aio_finish(way, channel, ask())
    assert _rejected(registry, way.path) == 1


def test_a_breaker_that_is_removed_begins_again_on_the_next_call(server: EchoServer) -> None:
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1))
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        echo = channel.unary_unary(ECHO)
        registry.get(ECHO).force_open()
        with pytest.raises(CircuitOpenError):
            echo(ask())
        registry.remove(ECHO)
        assert echo(ask()) == b"done"
        assert [breaker.name for breaker in registry] == [ECHO]


def test_what_a_limit_lets_go_is_found_again_by_its_name(server: EchoServer) -> None:
    registry = BreakerRegistry(limit=1)
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        echo, gather = channel.unary_unary(ECHO), channel.stream_unary(GATHER)
        echo(ask())
        gather(iter([ask()]))
        echo(ask())
        assert [breaker.name for breaker in registry] == [ECHO]
        registry.get(ECHO).force_open()
        with pytest.raises(CircuitOpenError):
            echo(ask())


def test_channels_go_on_sharing_a_breaker_after_it_was_dropped(server: EchoServer) -> None:
    registry = BreakerRegistry(BreakerSettings(failure_threshold=2))
    with (
        guard(grpc.insecure_channel(server.target), registry=registry) as one,
        guard(grpc.insecure_channel(server.target), registry=registry) as other,
    ):
        for channel in (one, other):
            channel.unary_unary(ECHO)(ask())
        registry.remove(ECHO)
        for channel in (one, other):
            with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
                channel.unary_unary(ECHO)(DOWN)
        assert registry.get(ECHO).state == "open"


def test_the_methods_of_a_service_go_on_sharing_its_breaker(server: EchoServer) -> None:
    registry = BreakerRegistry()
    bare = grpc.insecure_channel(server.target)
    with guard(bare, registry=registry, breaker_per="service") as channel:
        echo, gather = channel.unary_unary(ECHO), channel.stream_unary(GATHER)
        echo(ask())
        gather(iter([ask()]))
        registry.remove("/test.Echo")
        registry.get("/test.Echo").force_open()
        for call in (lambda: echo(ask()), lambda: gather(iter([ask()]))):
            with pytest.raises(CircuitOpenError):
                call()


def test_a_call_in_flight_is_settled_with_the_breaker_that_admitted_it(server: EchoServer) -> None:
    registry = BreakerRegistry()
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        first = registry.get(ECHO)
        future = channel.unary_unary(ECHO).future(ask(code="UNAVAILABLE", delay=0.2))
        registry.remove(ECHO)
        assert channel.unary_unary(ECHO)(ask()) == b"done"
        assert future.code() is grpc.StatusCode.UNAVAILABLE
        wait_until(lambda: first.snapshot().counters.failed == 1, "the outcome")
        counters = registry.get(ECHO).snapshot().counters
        assert (counters.succeeded, counters.failed) == (1, 0)


async def test_an_asyncio_call_in_flight_is_settled_with_the_breaker_that_admitted_it(
    server: EchoServer,
) -> None:
    registry = BreakerRegistry()
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        first, before = registry.get(ECHO), server.seen()["begun"]
        call = channel.unary_unary(ECHO)(ask(code="UNAVAILABLE", delay=0.2))
        await until(lambda: server.seen()["begun"] > before, "the call's begin")
        registry.remove(ECHO)
        assert await channel.unary_unary(ECHO)(ask()) == b"done"
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        await until(lambda: first.snapshot().counters.failed == 1, "the outcome")
        counters = registry.get(ECHO).snapshot().counters
        assert (counters.succeeded, counters.failed) == (1, 0)


class _Interrupted(BreakerRegistry):
    """A registry that another thread gets at just after it has given a breaker."""

    def __init__(self, meanwhile: Callable[[BreakerRegistry], None]) -> None:
        super().__init__()
        self._meanwhile: Callable[[BreakerRegistry], None] | None = meanwhile

    def get(self, name: str, settings: BreakerSettings | None = None) -> CircuitBreaker:
        breaker = super().get(name, settings)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile(self)
        return breaker


def test_a_breaker_that_is_dropped_while_it_is_given_is_not_kept(server: EchoServer) -> None:
    registry = _Interrupted(lambda registry: registry.remove(ECHO))
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        channel.unary_unary(ECHO)(ask())
        registry.get(ECHO).force_open()
        with pytest.raises(CircuitOpenError):
            channel.unary_unary(ECHO)(ask())


class _Counting(BreakerRegistry):
    """A registry that counts how often it is asked, and can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.fails = False

    def get(self, name: str, settings: BreakerSettings | None = None) -> CircuitBreaker:
        self.asked.append(name)
        if self.fails:
            raise OSError("no settings")
        return super().get(name, settings)


async def test_the_registry_is_asked_again_only_when_it_has_dropped_a_breaker(
    server: EchoServer,
) -> None:
    registry = _Counting()
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as later:
        with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
            for _ in range(3):
                channel.unary_unary(ECHO)(ask())
                await later.unary_unary(ECHO)(ask())
            assert registry.asked == [ECHO] * 2
            registry.remove("/no.Such/Breaker")
            channel.unary_unary(ECHO)(ask())
            assert registry.asked == [ECHO] * 2
            registry.remove(ECHO)
            for _ in range(3):
                channel.unary_unary(ECHO)(ask())
                await later.unary_unary(ECHO)(ask())
            assert registry.asked == [ECHO] * 4


def test_a_registry_that_fails_leaves_a_method_the_breaker_that_it_had(
    server: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    registry = _Counting()
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        channel.unary_unary(ECHO)(ask())
        first = registry.get(ECHO)
        registry.remove(ECHO)
        registry.fails = True
        channel.unary_unary(ECHO)(ask())
        assert first.snapshot().counters.succeeded == 2
        assert "its registry gave no breaker" in caplog.text
        registry.fails = False
        channel.unary_unary(ECHO)(ask())
        assert registry.get(ECHO).snapshot().counters.succeeded == 1


class _Plain:
    """A registry of a user's own, which does not report what it drops."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, name: str, settings: Any = None) -> CircuitBreaker:
        self.asked.append(name)
        return CircuitBreaker(name, settings=settings)


def test_what_a_registry_returns_that_reports_no_drops_is_kept(server: EchoServer) -> None:
    registry: Any = _Plain()
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        for _ in range(3):
            channel.unary_unary(ECHO)(ask())
    assert registry.asked == [ECHO]


def _alive(names: str) -> int:
    gc.collect()
    return sum(
        isinstance(each, CircuitBreaker) and each.name.startswith(names)
        for each in gc.get_objects()
    )


def test_a_channel_keeps_no_more_breakers_alive_than_the_limit(server: EchoServer) -> None:
    registry = BreakerRegistry(limit=5)
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        for number in range(60):
            channel.unary_unary(f"/kept.sync/{number}")(ask())
        assert _alive("/kept.sync/") <= 10


async def test_an_asyncio_channel_keeps_no_more_breakers_alive_than_the_limit(
    server: EchoServer,
) -> None:
    registry = BreakerRegistry(limit=5)
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        for number in range(60):
            await channel.unary_unary(f"/kept.aio/{number}")(ask())
        assert _alive("/kept.aio/") <= 10
