"""What a fallback may park, and where it may be used: only calls that can be made again."""

from __future__ import annotations

import datetime as dt
import functools
import logging
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.brokers import open_broker
from fusewire.errors import CircuitOpenError, SettingsError
from fusewire.forwarding import PARKED_METADATA, ParkedCalls
from fusewire.interceptors import aio_interceptors, guard
from tests.forwarding.shop import pending
from tests.support.grpc_server import CHAT, ECHO, GATHER, STREAM, EchoServer, ask
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fusewire.forwarding import Receipt

STATEMENT = "/fusewire.demo.payments.v1.Payments/Statement"
STREAMED = [way for way in SYNC_WAYS if way.shape != "unary_unary"]
AIO_STREAMED = [way for way in AIO_WAYS if way.shape != "unary_unary"]


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


@pytest.fixture
def open_circuits() -> BreakerRegistry:
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1))
    for name in (ECHO, STREAM, GATHER, CHAT):
        registry.get(name).acquire().failure()
    return registry


async def parked(calls: ParkedCalls, address: str) -> int:
    async with open_broker(address) as broker:
        return await broker.depth(calls.topology.parked("other"))


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_a_pattern_passes_sync_streams_by(
    way: Way, file: str, queue_name: str, echo: EchoServer, open_circuits: BreakerRegistry
) -> None:
    async with ParkedCalls(file, queue=queue_name) as calls:
        fallbacks = {"*": calls.park(reply=pending, idempotent=True)}
        with guard(echo.connect(), registry=open_circuits, fallbacks=fallbacks) as channel:
            seen = finish(way, channel, ask())
        assert "RejectedCall" in repr(seen)
        assert await parked(calls, file) == 0


@pytest.mark.parametrize("way", AIO_STREAMED, ids=str)
async def test_a_pattern_passes_asyncio_streams_by(
    way: Way, file: str, queue_name: str, echo: EchoServer, open_circuits: BreakerRegistry
) -> None:
    async with ParkedCalls(file, queue=queue_name) as calls:
        fallbacks = {"/test.Echo/*": calls.park(reply=pending, idempotent=True)}
        interceptors = aio_interceptors(registry=open_circuits, fallbacks=fallbacks)
        async with grpc.aio.insecure_channel(echo.target, interceptors=interceptors) as channel:
            seen = await aio_finish(way, channel, ask())
            unary: Any = channel.unary_unary(ECHO)
            assert (await unary(ask())).startswith(b"pending:")
        assert "AioRejectedCall" in repr(seen)
        assert await parked(calls, file) == 1


def test_parked_calls_that_are_made_have_calls_measured_from_then_on(file: str) -> None:
    registry = BreakerRegistry()
    ParkedCalls(file, queue="charges", registry=registry)
    assert registry.get(ECHO).durations is not None


@pytest.mark.parametrize("way", STREAMED, ids=str)
def test_an_exact_name_of_a_stream_is_refused_when_a_sync_channel_makes_it(
    way: Way, file: str, echo: EchoServer
) -> None:
    park = ParkedCalls(file, queue="q").park(reply=pending, at_most_once=True)
    with guard(echo.connect(), registry=BreakerRegistry(), fallbacks={way.path: park}) as channel:
        make = getattr(channel, way.shape)
        with pytest.raises(SettingsError, match=rf"'{way.path}'\]: the method has a stream of"):
            make(way.path)


async def test_an_exact_name_of_a_stream_is_refused_at_its_first_call_on_an_asyncio_channel(
    file: str, echo: EchoServer
) -> None:
    park = ParkedCalls(file, queue="q").park(reply=pending, at_most_once=True)
    interceptors = aio_interceptors(registry=BreakerRegistry(), fallbacks={STREAM: park})
    async with grpc.aio.insecure_channel(echo.target, interceptors=interceptors) as channel:
        stream: Any = channel.unary_stream(STREAM)
        for _ in range(2):
            with pytest.raises(SettingsError, match="stream of responses"):
                await stream(ask()).read()


def test_a_stream_whose_service_is_known_is_refused_when_the_guard_is_made(file: str) -> None:
    park = ParkedCalls(file, queue="q").park(reply=pending, at_most_once=True)
    with pytest.raises(SettingsError, match=r"Statement'\]: the method has a stream of responses"):
        aio_interceptors(fallbacks={STATEMENT: park})


async def _reply_later(request: Any, receipt: Any) -> bytes:
    return pending(request, receipt)


class _ReplyLater:
    async def __call__(self, request: Any, receipt: Any) -> bytes:
        return pending(request, receipt)


@pytest.mark.parametrize("reply", [_reply_later, _ReplyLater()])
@pytest.mark.parametrize("selector", ["*", ECHO])
def test_a_coroutine_reply_is_refused_by_a_sync_channel_when_its_guard_is_made(
    file: str, reply: Any, selector: str
) -> None:
    park = ParkedCalls(file, queue="q").park(reply=reply, idempotent=True)
    with (
        grpc.insecure_channel("127.0.0.1:1") as channel,
        pytest.raises(SettingsError, match="coroutine function, which a sync channel cannot run"),
    ):
        guard(channel, fallbacks={selector: park})
    aio_interceptors(fallbacks={selector: park})


class _Pending:
    def __init__(self, request: bytes, receipt: Receipt) -> None:
        self.operation_id = receipt.operation_id


class _NotMadeOfTwo:
    def __init__(self, request: bytes) -> None:
        self.request = request


def test_a_class_may_make_the_reply(file: str) -> None:
    calls = ParkedCalls(file, queue="q")
    calls.park(reply=_Pending, idempotent=True)
    with pytest.raises(SettingsError, match=r"reply must be .* cannot be called so"):
        calls.park(reply=_NotMadeOfTwo, idempotent=True)  # type: ignore[call-overload]


async def test_a_reply_that_is_none_leaves_the_error_and_says_that_it_is_parked(
    file: str, queue_name: str, echo: EchoServer, open_circuits: BreakerRegistry
) -> None:
    async with ParkedCalls(file, queue=queue_name) as calls:
        fallbacks = {ECHO: calls.park(reply=lambda request, receipt: None, idempotent=True)}
        interceptors = aio_interceptors(registry=open_circuits, fallbacks=fallbacks)
        async with grpc.aio.insecure_channel(echo.target, interceptors=interceptors) as channel:
            method: Any = channel.unary_unary(ECHO)
            with pytest.raises(CircuitOpenError) as caught:
                await method(ask())
        trailing: Any = caught.value.trailing_metadata()  # type: ignore[attr-defined]
        assert dict(tuple(trailing))[PARKED_METADATA] == "yes"
        assert await parked(calls, file) == 1


@pytest.mark.parametrize(
    ("arguments", "got"), [({}, "neither"), ({"idempotent": True, "at_most_once": True}, "both")]
)
def test_park_is_told_exactly_one_promise(file: str, arguments: Any, got: str) -> None:
    with pytest.raises(SettingsError, match=f"got {got}"):
        ParkedCalls(file, queue="q").park(reply=pending, **arguments)


@pytest.mark.parametrize("value", [dt.timedelta(seconds=5), "5s", True, 0, float("nan")])
@pytest.mark.parametrize("name", ["park_timeout", "replay_timeout", "expires_after"])
def test_what_is_no_duration_is_reported_by_name(file: str, name: str, value: Any) -> None:
    make: Any = functools.partial(ParkedCalls, file, queue="q")
    if name == "expires_after":
        make = functools.partial(make().park, reply=pending, idempotent=True)
    with pytest.raises(SettingsError, match=f"{name} must be a finite number of seconds above 0"):
        make(**{name: value})


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        one.getMessage()
        for one in caplog.records
        if one.levelno == logging.WARNING and one.name.startswith("fusewire.forwarding")
    ]


async def test_a_forwarder_on_a_channel_without_a_guard_says_so(
    file: str, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        ParkedCalls(file, queue=queue_name) as calls,
        grpc.aio.insecure_channel("127.0.0.1:1") as channel,
        calls.forward_to(channel),
    ):
        pass
    (warning,) = warned(caplog)
    assert "without a guard" in warning


def test_a_forwarder_on_a_sync_channel_without_a_guard_says_so(
    file: str, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        ParkedCalls(file, queue=queue_name) as calls,
        grpc.insecure_channel("127.0.0.1:1") as channel,
        calls.forward_to(grpc.intercept_channel(channel)),
    ):
        pass
    assert len(warned(caplog)) == 1


def test_a_guard_is_found_beneath_other_interceptors(
    file: str, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Other(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return continuation(details, request)

    with (
        ParkedCalls(file, queue=queue_name) as calls,
        guard(grpc.insecure_channel("127.0.0.1:1")) as channel,
        calls.forward_to(grpc.intercept_channel(channel, Other())),
    ):
        pass
    assert warned(caplog) == []


async def test_a_guard_of_another_registry_is_refused(file: str, queue_name: str) -> None:
    interceptors = aio_interceptors(registry=BreakerRegistry())
    async with (
        ParkedCalls(file, queue=queue_name) as calls,
        grpc.aio.insecure_channel("127.0.0.1:1", interceptors=interceptors) as channel,
    ):
        with pytest.raises(SettingsError, match="registry must be that of the channel's guard"):
            calls.forward_to(channel)
