"""Streams: when their permits are settled, what is slow, and fallbacks with several messages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerSettings, Outcome
from fusewire.errors import SettingsError
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_guard import WatchedRegistry
from tests.support.grpc_server import STREAM, EchoServer, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

OK, FAILURE, IGNORED = [Outcome.SUCCESS], [Outcome.FAILURE], [Outcome.IGNORED]


def sync_channel(server: EchoServer, registry: Any, **options: Any) -> grpc.Channel:
    return guard(grpc.insecure_channel(server.target), registry=registry, **options)


def aio_channel(server: EchoServer, registry: Any, **options: Any) -> grpc.aio.Channel:
    interceptors = aio_interceptors(registry=registry, **options)
    return grpc.aio.insecure_channel(server.target, interceptors=interceptors)


def test_a_stream_without_a_fallback_is_the_inner_channels_own_object(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    with grpc.insecure_channel(server.target) as bare:
        kind = type(bare.unary_stream(STREAM)(ask()))
    with sync_channel(server, registry) as channel:
        assert type(channel.unary_stream(STREAM)(ask())) is kind


def test_a_stream_is_settled_at_its_end_unless_told_otherwise(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    breaker = registry.get(STREAM)
    with sync_channel(server, registry) as channel:
        stream = channel.unary_stream(STREAM)(ask())
        next(stream)
        assert breaker.outcomes == []
        list(stream)
        wait_until(breaker.every_permit_settled_once, "the permit")
        assert breaker.outcomes == OK


def test_a_stream_may_be_settled_by_its_first_message(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    breaker = registry.get(STREAM)
    with sync_channel(server, registry, streams={STREAM: "first_message"}) as channel:
        stream = channel.unary_stream(STREAM)(ask(messages=-1))
        assert breaker.outcomes == []
        next(stream)
        assert breaker.outcomes == OK
        stream.cancel()
    assert breaker.outcomes == OK


async def test_an_asyncio_stream_may_be_settled_by_its_first_message(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    breaker = registry.get(STREAM)
    async with aio_channel(server, registry, streams={STREAM: "first_message"}) as channel:
        stream: Any = channel.unary_stream(STREAM)(ask(messages=-1))
        await stream.read()
        assert breaker.outcomes == OK
        stream.cancel()
    assert breaker.outcomes == OK


@pytest.mark.parametrize(
    ("streams", "before_first", "before_end", "slow"),
    [
        ("end", 9.0, 9.0, 0),
        ("first_message", 9.0, 0.0, 1),
        ("first_message", 0.0, 9.0, 0),
        ("total_time", 0.0, 9.0, 1),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "aio"])
async def test_what_a_streams_slowness_is_can_be_chosen(  # noqa: PLR0917 - the table's columns
    server: EchoServer,
    asynchronous: bool,  # noqa: FBT001 - a parameter of the test
    streams: Any,
    before_first: float,
    before_end: float,
    slow: int,
) -> None:
    registry: Any = WatchedRegistry(BreakerSettings(slow_call_duration=5.0))
    breaker = registry.get(STREAM)

    def first() -> None:
        registry.clock.pass_time(before_end)

    if asynchronous:
        async with aio_channel(server, registry, streams=streams) as channel:
            aio_stream: Any = channel.unary_stream(STREAM)(ask())
            await until(lambda: breaker.permits, "the permit")
            registry.clock.pass_time(before_first)
            await aio_stream.read()
            first()
            while await aio_stream.read() is not grpc.aio.EOF:
                pass
            await until(breaker.every_permit_settled_once, "the settlement")
    else:
        with sync_channel(server, registry, streams=streams) as channel:
            stream = channel.unary_stream(STREAM)(ask())
            registry.clock.pass_time(before_first)
            next(stream)
            first()
            list(stream)
            wait_until(breaker.every_permit_settled_once, "the settlement")
    assert breaker.outcomes == OK
    assert breaker.real.snapshot().counters.slow == slow


def test_a_way_to_settle_streams_that_does_not_exist_is_refused() -> None:
    with (
        grpc.insecure_channel("127.0.0.1:1") as channel,
        pytest.raises(SettingsError, match=r"^streams must be .*'first_message'.* got 'last'"),
    ):
        guard(channel, streams="last")


# Fallbacks.


def _generated(_request: object, error: grpc.RpcError) -> Iterator[bytes]:
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    yield b"a"
    yield b"b"


async def _generated_later(_request: object, error: grpc.RpcError) -> AsyncIterator[bytes]:
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    yield b"a"
    await asyncio.sleep(0)
    yield b"b"


async def _listed_later(_request: object, _error: grpc.RpcError) -> list[bytes]:
    await asyncio.sleep(0)
    return [b"a", b"b"]


DOWN = ask(code="UNAVAILABLE", details="down", messages=0)


def test_a_generator_function_is_a_streams_fallback(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    with sync_channel(server, registry, fallbacks={STREAM: _generated}) as channel:
        assert list(channel.unary_stream(STREAM)(DOWN)) == [b"a", b"b"]


@pytest.mark.parametrize("fallback", [_generated, _generated_later, _listed_later])
async def test_generators_and_coroutines_are_an_asyncio_streams_fallback(
    server: EchoServer, registry: WatchedRegistry, fallback: Any
) -> None:
    async with aio_channel(server, registry, fallbacks={STREAM: fallback}) as channel:
        stream: Any = channel.unary_stream(STREAM)(DOWN)
        assert [message async for message in stream] == [b"a", b"b"]


def test_an_async_generator_function_is_refused_on_a_sync_channel() -> None:
    with (
        grpc.insecure_channel("127.0.0.1:1") as channel,
        pytest.raises(SettingsError, match="coroutine function"),
    ):
        guard(channel, fallbacks={STREAM: _generated_later})


BROKEN_OFF = ask(code="UNAVAILABLE", details="down", messages=2, reply="m")


def test_a_fallback_never_follows_messages_of_the_server(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    with sync_channel(server, registry, fallbacks={STREAM: _generated}) as channel:
        stream = channel.unary_stream(STREAM)(BROKEN_OFF)
        assert [next(stream), next(stream)] == [b"m", b"m"]
        with pytest.raises(grpc.RpcError, match="down"):
            next(stream)
        assert stream.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_asyncio_fallback_never_follows_messages_of_the_server(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    async with aio_channel(server, registry, fallbacks={STREAM: _generated}) as channel:
        stream: Any = channel.unary_stream(STREAM)(BROKEN_OFF)
        assert [await stream.read(), await stream.read()] == [b"m", b"m"]
        with pytest.raises(grpc.RpcError, match="down"):
            await stream.read()
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE


def _breaks_off(_request: object, _error: object) -> Iterator[bytes]:
    yield b"a"
    raise LookupError("nothing more is stored")


BAD = pytest.mark.parametrize(
    ("fallback", "reason"),
    [
        (_breaks_off, LookupError),
        (b"one message", TypeError),
        (lambda _request, _error: 7, TypeError),
    ],
)


@BAD
def test_a_streams_fallback_that_fails_leaves_the_original_error(
    server: EchoServer, registry: WatchedRegistry, fallback: Any, reason: type[Exception]
) -> None:
    with sync_channel(server, registry, fallbacks={STREAM: fallback}) as channel:
        stream = channel.unary_stream(STREAM)(DOWN)
        with pytest.raises(grpc.RpcError, match="down") as raised:
            list(stream)
        assert isinstance(raised.value.__context__ or raised.value.__cause__, reason)
        assert stream.code() is grpc.StatusCode.UNAVAILABLE
        assert stream.done()


@BAD
async def test_an_asyncio_streams_fallback_that_fails_leaves_the_original_error(
    server: EchoServer, registry: WatchedRegistry, fallback: Any, reason: type[Exception]
) -> None:
    async with aio_channel(server, registry, fallbacks={STREAM: fallback}) as channel:
        stream: Any = channel.unary_stream(STREAM)(DOWN)
        with pytest.raises(grpc.RpcError, match="down") as raised:
            [message async for message in stream]
        assert isinstance(raised.value.__cause__, reason)
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        assert stream.done()


def test_done_callbacks_of_a_stream_come_when_its_fallback_is_exhausted(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    registry.get(STREAM).open()
    with sync_channel(server, registry, fallbacks={STREAM: [b"a", b"b"]}) as channel:
        stream = channel.unary_stream(STREAM)(DOWN)
        called: list[object] = []
        stream.add_done_callback(called.append)
        assert (next(stream), called, stream.done()) == (b"a", [], False)
        assert list(stream) == [b"b"]
        assert stream.done()
        wait_until(lambda: called == [stream], "the callback")


async def test_done_callbacks_of_an_asyncio_stream_come_when_its_fallback_is_exhausted(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    registry.get(STREAM).open()
    async with aio_channel(server, registry, fallbacks={STREAM: [b"a", b"b"]}) as channel:
        stream: Any = channel.unary_stream(STREAM)(DOWN)
        called: list[object] = []
        stream.add_done_callback(called.append)
        assert (await stream.read(), called, stream.done()) == (b"a", [], False)
        assert [message async for message in stream] == [b"b"]
        assert (called, stream.done()) == ([stream], True)


# Half open.


def test_a_streams_failure_while_half_open_opens_the_circuit_again(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    breaker = registry.get(STREAM)
    breaker.open()
    registry.clock.pass_time(31)
    with sync_channel(server, registry) as channel:
        with pytest.raises(grpc.RpcError):
            list(channel.unary_stream(STREAM)(BROKEN_OFF))
        wait_until(lambda: breaker.state == "open", "the circuit's opening")


async def test_a_stream_that_hangs_while_half_open_gives_its_place_back_in_the_end(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    breaker = registry.get(STREAM)
    breaker.open()
    registry.clock.pass_time(31)
    async with aio_channel(server, registry) as channel:
        hanging: Any = channel.unary_stream(STREAM)(ask(messages=-1))
        await hanging.read()
        assert not breaker.real.can_execute()
        registry.clock.pass_time(61)
        stream: Any = channel.unary_stream(STREAM)(ask())
        assert [message async for message in stream] == [b"done"] * 3
        await until(lambda: breaker.state == "closed", "the circuit's closing")
        hanging.cancel()
