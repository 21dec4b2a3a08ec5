"""What grpcio does that one would not expect, each measured on it: none of it fools a guard.

Traps that every way of calling has are in the matrix; these have some of their own. How calls end
is in ``test_call_end_traps.py``.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import grpc
import grpc.experimental
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import STYLES, aio_seen, seen, until
from tests.support.grpc_guard_options import GUARDS
from tests.support.grpc_server import CHAT, ECHO, GATHER, STREAM, EchoServer, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry

IGNORED = Outcome.IGNORED
SIZE_LIMITS = pytest.mark.parametrize(
    ("option", "details"),
    [
        ("grpc.max_send_message_length", "Sent message larger than max"),
        ("grpc.max_receive_message_length", "Received message larger than max"),
    ],
)


# Failures of this process that carry a status as a server's would.


@SIZE_LIMITS
@STYLES
def test_a_size_limit_of_our_own_says_nothing_about_the_server(
    server: EchoServer, registry: WatchedRegistry, option: str, details: str, style: str
) -> None:
    order = ask(reply="x" * 4000, details="x" * 4000)
    channel = grpc.insecure_channel(server.target, options=[(option, 2000)])
    with guard(channel, registry=registry) as guarded:
        _, code, told, _ = seen(guarded.unary_unary(ECHO), style, order)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details in told
        breaker = registry.get(ECHO)
        wait_until(lambda: breaker.outcomes == [IGNORED], "the call's outcome")


@SIZE_LIMITS
async def test_an_asyncio_channels_size_limit_says_nothing_about_the_server(
    server: EchoServer, registry: WatchedRegistry, option: str, details: str
) -> None:
    order = ask(reply="x" * 4000, details="x" * 4000)
    async with grpc.aio.insecure_channel(
        server.target, options=[(option, 2000)], interceptors=aio_interceptors(registry=registry)
    ) as channel:
        _, code, told, _ = await aio_seen(channel.unary_unary(ECHO)(order))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details in told
    assert registry.get(ECHO).outcomes == [IGNORED]


def _raising() -> Iterator[bytes]:
    yield ask(patience=True)
    raise ValueError("no more requests")


async def _raising_later() -> AsyncIterator[bytes]:
    yield ask(patience=True)
    raise ValueError("no more requests")


@GUARDS
def test_a_request_iterator_that_raises_says_nothing_about_the_server(
    server: EchoServer, registry: WatchedRegistry, options: dict[str, Any]
) -> None:
    with guard(grpc.insecure_channel(server.target), registry=registry, **options) as channel:
        for path, shape in ((GATHER, channel.stream_unary), (CHAT, channel.stream_stream)):
            with pytest.raises(grpc.RpcError) as raised:
                list(shape(path)(_raising()))
            assert raised.value.details() == "Exception iterating requests!"
            breaker = registry.get(path)
            wait_until(lambda breaker=breaker: breaker.outcomes == [IGNORED], "the outcome")


@GUARDS
async def test_an_asyncio_request_iterator_that_raises_says_nothing_about_the_server(
    server: EchoServer, registry: WatchedRegistry, options: dict[str, Any]
) -> None:
    interceptors = aio_interceptors(registry=registry, **options)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        with pytest.raises(asyncio.CancelledError):
            await channel.stream_unary(GATHER)(_raising_later())
        with pytest.raises(asyncio.CancelledError):
            await channel.stream_stream(CHAT)(_raising_later()).read()
        for path in (GATHER, CHAT):
            breaker = registry.get(path)
            await until(lambda breaker=breaker: breaker.outcomes == [IGNORED], "the outcome")


# Probes that never end: nobody reads them, or grpcio keeps them.


def _half_open(registry: WatchedRegistry) -> WatchedBreaker:
    breaker = registry.get(STREAM)
    breaker.open()
    registry.clock.pass_time(31)
    return breaker


def test_an_unread_streams_place_as_a_probe_is_given_back_when_its_lease_runs_out(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    # A stream that is held and not read tells no end: its messages come first.
    breaker = _half_open(registry)
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        unread = channel.unary_stream(STREAM)(ask())
        assert not breaker.real.can_execute()
        registry.clock.pass_time(61)
        assert list(channel.unary_stream(STREAM)(ask())) == [b"done"] * 3
        wait_until(lambda: breaker.state == "closed", "the circuit's closing")
        assert len(list(unread)) == 3
        wait_until(breaker.every_permit_settled_once, "the late permit")
    assert breaker.state == "closed"


@GUARDS
async def test_an_abandoned_asyncio_streams_place_as_a_probe_is_given_back(
    server: EchoServer, registry: WatchedRegistry, options: dict[str, Any]
) -> None:
    # Since 1.83 grpcio never collects it (https://github.com/grpc/grpc/issues/43462).
    breaker = _half_open(registry)
    interceptors = aio_interceptors(registry=registry, **options)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        before = server.seen()["begun"]
        channel.unary_stream(STREAM)(ask(delay=20))
        await until(lambda: server.seen()["begun"] == before + 1, "the call's begin")
        gc.collect()
        registry.clock.pass_time(61)
        stream: Any = channel.unary_stream(STREAM)(ask())
        assert [message async for message in stream] == [b"done"] * 3
        await until(lambda: breaker.state == "closed", "the circuit's closing")
    await until(breaker.every_permit_settled_once, "the late permit")
    assert breaker.state == "closed"


# What a call was made with stays with it where a guard changes something else of it.


class _Recording(grpc.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.details: list[Any] = []

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.details.append(details)
        return continuation(details, request)


class _AioRecording(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.details: list[Any] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.details.append(details)
        return await continuation(details, request)


@STYLES
def test_a_probe_goes_with_all_that_its_call_was_made_with(
    server: EchoServer, registry: WatchedRegistry, style: str
) -> None:
    breaker = registry.get(ECHO)
    breaker.open()
    registry.clock.pass_time(31)
    recording = _Recording()
    inner = grpc.intercept_channel(grpc.insecure_channel(server.target), recording)
    pairs = (("key", "value"), ("key", "again"))
    with guard(inner, registry=registry) as channel:
        seen(
            channel.unary_unary(ECHO),
            style,
            ask(),
            timeout=20,
            metadata=pairs,
            compression=grpc.Compression.Gzip,
        )
    (details,) = recording.details
    assert details.wait_for_ready is True  # what the guard has changed
    assert details.compression is grpc.Compression.Gzip
    assert (details.method, details.timeout, tuple(details.metadata)) == (ECHO, 20, pairs)


async def test_an_asyncio_probe_goes_with_all_that_its_call_was_made_with(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    breaker = registry.get(ECHO)
    breaker.open()
    registry.clock.pass_time(31)
    recording = _AioRecording()
    pairs = (("key", "value"), ("key", "again"))
    interceptors: list[Any] = [*aio_interceptors(registry=registry), recording]
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        await channel.unary_unary(ECHO)(
            ask(), timeout=20, metadata=pairs, compression=grpc.Compression.Gzip
        )
    (details,) = recording.details
    assert details.wait_for_ready is True  # what the guard has changed
    # A method's path is in bytes here, and compression a pair of the metadata.
    assert (details.method, details.timeout) == (ECHO.encode(), 20)
    sent = [
        (key.decode() if isinstance(key, bytes) else key, value)  # in bytes with grpcio 1.71
        for key, value in details.metadata
    ]
    assert sent == [*pairs, ("grpc-internal-encoding-request", "gzip")]
