"""Other people's interceptors and wrappers, over and under ours: nothing changes for the user."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.api_core import exceptions, grpc_helpers, grpc_helpers_async, retry
from grpc_interceptor import ClientInterceptor
from opentelemetry.instrumentation.grpc import aio_client_interceptors, client_interceptor
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fusewire.breaker import Outcome
from fusewire.errors import CircuitOpenError
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_server import ECHO, STREAM, ask, wait_until
from tests.support.grpc_users import SyncUser
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, aio_finish, finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry
    from tests.support.grpc_server import EchoServer
    from tests.support.grpc_ways import Way

OK, FAILURE, IGNORED = [Outcome.SUCCESS], [Outcome.FAILURE], [Outcome.IGNORED]

ENDS = {
    "ok": (ask(), OK),
    "error": (ask(code="UNAVAILABLE", details="no", messages=0), FAILURE),
    "answered": (ask(code="NOT_FOUND", messages=0), OK),
    "broken off": (ask(code="INTERNAL", messages=2), FAILURE),
}
END = pytest.mark.parametrize(("order", "outcomes"), ENDS.values(), ids=list(ENDS))
ORDER = pytest.mark.parametrize("ours", ["outside", "inside"])

# With OpenTelemetry's interceptors, a writer waits forever: they await the call's end first
# (https://github.com/grpc/grpc/issues/34530).
AIO_OTHERS = [way for way in AIO_WAYS if way.style != "write"]


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


class Passing(ClientInterceptor):
    """grpc-interceptor's own way to pass a call on."""

    def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, call_details: Any
    ) -> Any:
        return method(request_or_iterator, call_details)


def intercept(channel: grpc.Channel, other: Any) -> grpc.Channel:
    """Put an interceptor on a channel; OpenTelemetry's needs its own function for that."""
    theirs = not isinstance(other, grpc.UnaryUnaryClientInterceptor)
    return intercept_channel(channel, other) if theirs else grpc.intercept_channel(channel, other)


def composed(server: EchoServer, other: Any, ours: str, **options: Any) -> grpc.Channel:
    channel = grpc.insecure_channel(server.target)
    if ours == "outside":
        return guard(intercept(channel, other), **options)
    return intercept(guard(channel, **options), other)


def aio_composed(server: EchoServer, other: Any, ours: str, **options: Any) -> grpc.aio.Channel:
    guards = aio_interceptors(**options)
    interceptors = [*guards, *other] if ours == "outside" else [*other, *guards]
    return grpc.aio.insecure_channel(server.target, interceptors=interceptors)


def sync_others() -> list[Any]:
    return [
        pytest.param(client_interceptor, id="opentelemetry"),
        pytest.param(lambda _provider: Passing(), id="grpc-interceptor"),
    ]


@END
@ORDER
@pytest.mark.parametrize("make", sync_others())
@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_sync_user_sees_the_same_with_our_guard_around_or_within(  # noqa: PLR0917 - fixtures
    way: Way,
    make: Any,
    ours: str,
    order: bytes,
    outcomes: list[Outcome],
    server: EchoServer,
    provider: TracerProvider,
    registry: WatchedRegistry,
) -> None:
    with intercept(grpc.insecure_channel(server.target), make(provider)) as channel:
        without = finish(way, channel, order)
    with composed(server, make(provider), ours, registry=registry) as channel:
        assert finish(way, channel, order) == without
    breaker = registry.get(way.path)
    wait_until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == outcomes


@END
@ORDER
@pytest.mark.parametrize("way", AIO_OTHERS, ids=str)
async def test_an_asyncio_user_sees_the_same_with_our_guards_around_or_within(  # noqa: PLR0917 - fixtures
    way: Way,
    ours: str,
    order: bytes,
    outcomes: list[Outcome],
    server: EchoServer,
    provider: TracerProvider,
    registry: WatchedRegistry,
) -> None:
    theirs = aio_client_interceptors(provider)
    async with grpc.aio.insecure_channel(server.target, interceptors=theirs) as channel:
        without = await aio_finish(way, channel, order)
    async with aio_composed(server, theirs, ours, registry=registry) as channel:
        assert await aio_finish(way, channel, order) == without
    breaker = registry.get(way.path)
    await until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == outcomes


@ORDER
@pytest.mark.parametrize(
    "way", [way for way in SYNC_WAYS if not way.blocks and not way.streams], ids=str
)
def test_a_cancel_reaches_the_server_through_opentelemetrys_and_our_interceptors(
    way: Way,
    ours: str,
    server: EchoServer,
    provider: TracerProvider,
    registry: WatchedRegistry,
) -> None:
    with composed(server, client_interceptor(provider), ours, registry=registry) as channel:
        user = SyncUser(way, channel, server)
        finish(way, channel, ask(delay=20), act=user.cancel_in_flight)
        assert user.answers == [True]
    breaker = registry.get(way.path)
    wait_until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == IGNORED


async def stops_on_the_server(way: Way, channel: Any, server: EchoServer) -> bool:
    """Cancel a call in flight and return whether the server hears of it."""
    before = server.seen()
    call = way.make(channel, ask(delay=1.0))
    await until(lambda: server.seen()["begun"] > before["begun"], "the call's begin")
    call.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await until(lambda: server.seen()["cancelled"] > before["cancelled"], "the cancel")
    return bool(server.seen()["cancelled"] > before["cancelled"])


@ORDER
@pytest.mark.parametrize("way", AIO_OTHERS, ids=str)
async def test_a_cancel_reaches_the_server_where_opentelemetrys_asyncio_interceptor_lets_it(
    way: Way,
    ours: str,
    server: EchoServer,
    provider: TracerProvider,
    registry: WatchedRegistry,
) -> None:
    # https://github.com/open-telemetry/opentelemetry-python-contrib/issues/3271
    theirs = aio_client_interceptors(provider)
    async with grpc.aio.insecure_channel(server.target, interceptors=theirs) as channel:
        without = await stops_on_the_server(way, channel, server)
    async with aio_composed(server, theirs, ours, registry=registry) as channel:
        assert await stops_on_the_server(way, channel, server) == without
    assert without is way.streams  # of a call with one response it awaits the end first
    breaker = registry.get(way.path)
    await until(breaker.every_permit_settled_once, "the permit")


@pytest.mark.parametrize("guarded", [False, True])
def test_opentelemetrys_own_interceptor_takes_a_sync_streams_cancel_away(
    server: EchoServer, provider: TracerProvider, registry: WatchedRegistry, *, guarded: bool
) -> None:
    channel = intercept(grpc.insecure_channel(server.target), client_interceptor(provider))
    with guard(channel, registry=registry) if guarded else channel as used:
        stream = used.unary_stream(STREAM)(ask(messages=-1))
        next(stream)
        with pytest.raises(AttributeError):
            stream.cancel()
        before = server.seen()
        stream.close()
        del stream
        wait_until(lambda: server.seen()["cancelled"] > before["cancelled"], "the stream's end")
    assert registry.get(STREAM).outcomes == (IGNORED if guarded else [])


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize("kind", ["end", "first_message"])
def test_a_generator_in_a_streams_place_gives_its_permit_back_when_it_is_dropped(
    server: EchoServer, provider: TracerProvider, registry: WatchedRegistry, kind: Any, read: int
) -> None:
    # It begins the call when it is first read, and never reports its end.
    with composed(
        server, client_interceptor(provider), "outside", registry=registry, streams=kind
    ) as channel:
        stream = channel.unary_stream(STREAM)(ask(messages=-1))
        for _ in range(read):
            next(stream)
        del stream
        breaker = registry.get(STREAM)
        wait_until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == (OK if kind == "first_message" and read else IGNORED)


class Blocking(grpc.UnaryUnaryClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Waits for the end of every call, futures too, as py-grpc-prometheus and examples do.

    What it gives in their place is an error without callbacks, or a call that is over.
    """

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = continuation(details, request)
        return call.exception() or call

    intercept_stream_unary = intercept_unary_unary


class Erring(grpc.UnaryUnaryClientInterceptor):
    """Returns the error of a blocking call, which has no callbacks, instead of a future."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.error = error

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return self.error


@END
@pytest.mark.parametrize("way", [way for way in SYNC_WAYS if not way.streams], ids=str)
def test_calls_that_an_interceptor_within_has_waited_for_are_counted(
    way: Way, order: bytes, outcomes: list[Outcome], server: EchoServer, registry: WatchedRegistry
) -> None:
    with grpc.intercept_channel(grpc.insecure_channel(server.target), Blocking()) as channel:
        without = finish(way, channel, order)
    with composed(server, Blocking(), "outside", registry=registry) as channel:
        assert finish(way, channel, order) == without
    breaker = registry.get(way.path)
    wait_until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == outcomes


def test_an_error_without_callbacks_is_counted_in_the_place_of_a_future(
    bare: grpc.Channel, server: EchoServer, registry: WatchedRegistry
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        bare.unary_unary(ECHO)(ask(code="UNAVAILABLE"))
    with pytest.raises(NotImplementedError):
        raised.value.add_callback(lambda: None)
    with composed(server, Erring(raised.value), "outside", registry=registry) as channel:
        future = channel.unary_unary(ECHO).future(ask())
        assert future.exception() is raised.value
    assert registry.get(ECHO).outcomes == FAILURE


# What each order makes of a rejection.


@pytest.mark.parametrize("make", sync_others())
@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_an_outer_interceptors_user_sees_a_rejection_and_no_internal_error(
    way: Way, make: Any, server: EchoServer, provider: TracerProvider, registry: WatchedRegistry
) -> None:
    # What an inner channel raises grpcio turns into INTERNAL, in futures and streams.
    registry.get(way.path).open()
    with (  # noqa: PT012 - which statement raises depends on the way
        composed(server, make(provider), "inside", registry=registry) as channel,
        pytest.raises(CircuitOpenError) as raised,
    ):
        call = way.make(channel, ask())
        if not way.blocks:
            assert not hasattr(call, "code") or call.code() is grpc.StatusCode.UNAVAILABLE
            next(call) if way.streams else call.result(20)
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(("ours", "traced"), [("outside", 0), ("inside", 1)])
def test_a_rejection_is_traced_by_what_is_outside(  # noqa: PLR0917 - fixtures
    server: EchoServer,
    provider: TracerProvider,
    spans: InMemorySpanExporter,
    registry: WatchedRegistry,
    ours: str,
    traced: int,
) -> None:
    registry.get(ECHO).open()
    with (
        composed(server, client_interceptor(provider), ours, registry=registry) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        channel.unary_unary(ECHO)(ask())
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ECHO in raised.value.details()
    assert len(spans.get_finished_spans()) == traced


# OpenTelemetry's asyncio interceptors leave the span open if what they call raises; so does a
# rejection's stay, and nothing is exported.
@pytest.mark.parametrize(("ours", "traced"), [("outside", 0), ("inside", 0)])
async def test_a_rejection_is_traced_by_what_is_outside_on_asyncio(  # noqa: PLR0917 - fixtures
    server: EchoServer,
    provider: TracerProvider,
    spans: InMemorySpanExporter,
    registry: WatchedRegistry,
    ours: str,
    traced: int,
) -> None:
    registry.get(ECHO).open()
    theirs = aio_client_interceptors(provider)
    async with aio_composed(server, theirs, ours, registry=registry) as channel:
        with pytest.raises(CircuitOpenError, match=ECHO):
            await channel.unary_unary(ECHO)(ask())
    assert len(spans.get_finished_spans()) == traced


# google-api-core.


def test_google_api_cores_errors_have_our_rejection_as_their_cause(
    guarded: grpc.Channel, breaker: WatchedBreaker
) -> None:
    method = grpc_helpers.wrap_errors(guarded.unary_unary(ECHO))
    assert method(ask()) == b"done"
    breaker.open()
    with pytest.raises(exceptions.ServiceUnavailable) as raised:
        method(ask())
    assert isinstance(raised.value.__cause__, CircuitOpenError)
    stream = grpc_helpers.wrap_errors(guarded.unary_stream(STREAM))
    assert list(stream(ask())) == [b"done"] * 3


async def test_google_api_cores_asyncio_errors_have_our_rejection_as_their_cause(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        method = grpc_helpers_async.wrap_errors(channel.unary_unary(ECHO))
        assert await method(ask()) == b"done"
        breaker.open()
        with pytest.raises(exceptions.ServiceUnavailable) as raised:
            await method(ask())
        assert isinstance(raised.value.__cause__, CircuitOpenError)
        stream: Any = grpc_helpers_async.wrap_errors(channel.unary_stream(STREAM))(ask())
        assert [message async for message in await stream] == [b"done"] * 3


def test_google_api_cores_retries_around_ours_end_with_the_recovery(
    guarded: grpc.Channel, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    breaker.open()
    tries = retry.Retry(
        initial=0.001,
        maximum=0.001,
        predicate=retry.if_exception_type(exceptions.ServiceUnavailable),
        on_error=lambda _error: registry.clock.pass_time(16),
    )
    assert tries(grpc_helpers.wrap_errors(guarded.unary_unary(ECHO)))(ask()) == b"done"
