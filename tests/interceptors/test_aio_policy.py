"""Which breaker an asyncio call has, what its end means, probes, operations, other interceptors."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest

from fusewire.breaker import BreakerSettings, Outcome
from fusewire.errors import CircuitOpenError
from fusewire.interceptors import Classification, aio_interceptors, guard
from fusewire.operation import operation
from tests.support.grpc_calls import aio_seen, until
from tests.support.grpc_guard import WatchedRegistry
from tests.support.grpc_server import ECHO, HEALTH, ask

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedBreaker
    from tests.support.grpc_server import EchoServer

pytestmark = pytest.mark.usefixtures("one_loop")

OK, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED


def guarded_channel(
    target: str,
    registry: WatchedRegistry,
    *,
    around: Any = (),
    within: Any = (),
    channel_options: Any = None,
    **options: Any,
) -> Any:
    interceptors = [*around, *aio_interceptors(registry=registry, **options), *within]
    return grpc.aio.insecure_channel(target, channel_options, interceptors=interceptors)


async def test_the_circuit_closes_again_after_probes_that_were_answered(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    async with guarded_channel(server.target, registry) as channel:
        method = channel.unary_unary(ECHO)
        for _ in range(2):
            await aio_seen(method(ask(code="UNAVAILABLE")))
        assert breaker.state == "open"
        registry.clock.pass_time(31)
        result = await aio_seen(method(ask(code="NOT_FOUND")))
        assert result[1] is grpc.StatusCode.NOT_FOUND
        assert breaker.state == "closed"


async def test_a_cancelled_probe_gives_its_place_back(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    breaker.open()
    registry.clock.pass_time(31)
    async with guarded_channel(server.target, registry) as channel:
        method = channel.unary_unary(ECHO)
        probe = method(ask(delay=20))
        await until(lambda: breaker.permits, "the probe's begin")
        with pytest.raises(CircuitOpenError):
            await method(ask())
        probe.cancel()
        await until(lambda: breaker.outcomes == [IGNORED], "the probe's outcome")
        assert await method(ask()) == b"done"
        assert breaker.state == "closed"


async def test_a_probe_with_invalid_metadata_takes_no_place(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    breaker.open()
    registry.clock.pass_time(31)
    async with guarded_channel(server.target, registry) as channel:
        method = channel.unary_unary(ECHO)
        await aio_seen(method(ask(), metadata=(("Bad Key", "x"),)))
        assert await method(ask()) == b"done"


async def test_a_probe_with_a_deadline_waits_for_the_connection(
    mortal: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    options = [("grpc.initial_reconnect_backoff_ms", 1500), ("grpc.min_reconnect_backoff_ms", 1500)]
    mortal.kill()
    async with guarded_channel(mortal.target, registry, channel_options=options) as channel:
        method = channel.unary_unary(ECHO)
        for _ in range(2):
            await aio_seen(method(ask()))
        assert breaker.state == "open"
        registry.clock.pass_time(31)
        mortal.start()
        assert await method(ask(), timeout=20) == b"done"
        assert breaker.state == "closed"


async def test_a_probe_whose_user_decided_not_to_wait_does_not(
    mortal: EchoServer, registry: WatchedRegistry
) -> None:
    options = [("grpc.initial_reconnect_backoff_ms", 9000), ("grpc.min_reconnect_backoff_ms", 9000)]
    mortal.kill()
    async with guarded_channel(mortal.target, registry, channel_options=options) as channel:
        method = channel.unary_unary(ECHO)
        for _ in range(2):
            await aio_seen(method(ask()))
        registry.clock.pass_time(31)
        mortal.start()
        result = await aio_seen(method(ask(), timeout=20, wait_for_ready=False))
        assert result[1] is grpc.StatusCode.UNAVAILABLE


async def test_health_checks_are_never_guarded(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    async with guarded_channel(server.target, registry) as channel:
        for _ in range(3):
            result = await aio_seen(channel.unary_unary(HEALTH)(ask(code="UNAVAILABLE")))
            assert result[0] == "AioRpcError"
    assert list(registry) == []


async def test_sync_and_asyncio_channels_share_a_methods_breaker(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    with guard(grpc.insecure_channel(server.target), dependency="eu", registry=registry) as channel:
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(ECHO)(ask(code="UNAVAILABLE"))
    async with guarded_channel(server.target, registry, dependency="eu") as channel:
        with pytest.raises(CircuitOpenError) as raised:
            await channel.unary_unary(ECHO)(ask())
    assert raised.value.name == "eu/test.Echo/Do"


async def test_many_tasks_share_a_breaker_and_settle_every_permit_once(server: EchoServer) -> None:
    registry = WatchedRegistry(BreakerSettings(failure_threshold=1_000_000))
    async with guarded_channel(server.target, registry) as channel:
        method = channel.unary_unary(ECHO)
        await asyncio.gather(
            *(aio_seen(method(ask(code=("OK", "INTERNAL")[n % 2]))) for n in range(100))
        )
    breaker = registry.get(ECHO)
    assert breaker.outcomes.count(OK) == breaker.outcomes.count(FAILURE) == 50
    assert breaker.every_permit_settled_once()


async def test_a_servers_hint_is_passed_to_the_breaker(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    request = ask(code="RESOURCE_EXHAUSTED", trailing=(("grpc-retry-pushback-ms", "7000"),))
    async with guarded_channel(server.target, registry) as channel:
        await aio_seen(channel.unary_unary(ECHO)(request))
    assert breaker.told == [(FAILURE, 7.0)]


async def test_what_a_status_means_can_be_told_per_method(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    classify = {ECHO: Classification({grpc.StatusCode.NOT_FOUND: FAILURE})}
    async with guarded_channel(server.target, registry, classify=classify) as channel:
        await aio_seen(channel.unary_unary(ECHO)(ask(code="NOT_FOUND")))
        await aio_seen(channel.unary_unary("/test.Other/Do")(ask(code="NOT_FOUND")))
    assert breaker.outcomes == [FAILURE]
    assert registry.get("/test.Other/Do").outcomes == [OK]


@pytest.mark.parametrize("classify", [lambda _: 1 / 0, sys.exit])
async def test_a_classify_that_fails_changes_nothing_for_the_caller(
    server: EchoServer,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    caplog: pytest.LogCaptureFixture,
    classify: Any,
) -> None:
    async with guarded_channel(server.target, registry, classify=classify) as channel:
        result = await aio_seen(channel.unary_unary(ECHO)(ask(code="INTERNAL", details="x")))
        assert result[1:3] == (grpc.StatusCode.INTERNAL, "x")
    assert breaker.outcomes == [IGNORED]
    assert "not counted" in caplog.text


async def test_a_failed_call_is_noted_in_the_operation_that_made_it(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    async with guarded_channel(server.target, registry) as channel:
        with operation("op-1") as work:
            call = channel.unary_unary(ECHO)(ask(code="INTERNAL"))
        await aio_seen(call)
    assert work.failed == [ECHO]


class _Details(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any


class _Changing(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor that makes details of its own, as several packages do."""

    async def intercept_unary_unary(self, continuation: Any, details: str, request: bytes) -> Any:
        return await continuation(_Details(*details), request)


class _Awaiting(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor that awaits the call, as OpenTelemetry's does."""

    async def intercept_unary_unary(self, continuation: Any, details: str, request: bytes) -> Any:
        call = await continuation(details, request)
        await call
        return call


class _Answering(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor that returns a response message instead of a call."""

    async def intercept_unary_unary(self, continuation: Any, details: str, request: bytes) -> Any:
        return await (await continuation(details, request))


class _Raising(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: str, request: bytes) -> None:
        raise ValueError("an interceptor's own fault")


@pytest.mark.parametrize("place", ["around", "within"])
@pytest.mark.parametrize("other", [_Changing, _Awaiting, _Answering])
@pytest.mark.parametrize("code", ["OK", "INTERNAL"])
async def test_other_interceptors_go_inside_and_outside(
    server: EchoServer,
    registry: WatchedRegistry,
    place: Any,
    other: Any,
    code: str,
) -> None:
    async with guarded_channel(
        server.target, registry, idempotent={ECHO}, **{place: (other(),)}
    ) as channel:
        with operation("op-1"):
            result: Any = await aio_seen(channel.unary_unary(ECHO)(ask(code=code)))
        assert result == b"done" if code == "OK" else result[1].name == code
    assert registry.get(ECHO).outcomes == [OK if code == "OK" else FAILURE]


# An older grpcio (1.71) raises in __del__ of a call whose interceptors have raised.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_inner_interceptor_that_raises_says_nothing_about_the_dependency(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    async with guarded_channel(server.target, registry, within=(_Raising(),)) as channel:
        with pytest.raises(ValueError, match="own fault"):
            await channel.unary_unary(ECHO)(ask())
    await asyncio.sleep(0)
    gc.collect()
    assert breaker.outcomes == [IGNORED]


async def test_an_inner_guards_rejection_says_nothing_about_the_dependency(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    registry.get("inner" + ECHO).open()
    inner = aio_interceptors(registry=registry, dependency="inner")
    async with guarded_channel(
        server.target, registry, dependency="outer", within=inner
    ) as channel:
        with pytest.raises(CircuitOpenError):
            await channel.unary_unary(ECHO)(ask())
    assert registry.get("outer" + ECHO).outcomes == [IGNORED]
