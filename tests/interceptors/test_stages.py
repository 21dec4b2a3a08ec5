"""Streams whose end is reported before their messages are read, as grpcio may do."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors._aio.stream import WatchedUnaryStream
from fusewire.interceptors._call import GuardedCall
from fusewire.interceptors._policy import Policies
from fusewire.interceptors._sync.stream import WatchedStream
from tests.support.grpc_server import STREAM, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Method:
    """What is known of the method."""

    shape = "unary_stream"
    serialize = None


def guarded_with(registry: WatchedRegistry, fallback: Any, *, sync: bool) -> GuardedCall:
    """Return an admitted call to which `fallback` belongs."""
    policy = Policies(
        None,
        dependency=None,
        registry=registry,
        fallbacks={STREAM: fallback},
        classify=None,
        idempotent=(),
        streams="end",
        breaker_per="method",
        health=None,
        sync=sync,
    ).of(STREAM, "unary_stream")
    assert policy is not None
    guarded = GuardedCall.of(policy, None, None, b"", Method())
    assert guarded.admit() is None
    return guarded


@pytest.fixture
def breaker(registry: WatchedRegistry) -> WatchedBreaker:
    return registry.get(STREAM)


class AioStream:
    """A call on an asyncio channel that has failed, with one message left to read."""

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    async def code(self) -> grpc.StatusCode:
        return UNAVAILABLE

    async def details(self) -> str:
        return "gone"

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a"
        empty = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(UNAVAILABLE, empty, empty, details="gone")


async def test_no_fallback_answers_an_asyncio_stream_that_has_given_a_message_after_its_end(
    registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    asked: list[object] = []
    guarded = guarded_with(registry, lambda *given: asked.append(given), sync=False)
    stream = WatchedUnaryStream(AioStream(), guarded)
    over: list[object] = []
    stream.add_done_callback(over.append)
    assert not stream.done()  # the fallback may answer, as far as is known
    assert await stream.read() == b"a"
    assert stream.done()
    assert over == [stream]
    assert await stream.code() is UNAVAILABLE
    with pytest.raises(grpc.aio.AioRpcError, match="gone"):
        await stream.read()
    assert asked == []
    assert breaker.outcomes == [Outcome.FAILURE]


class SyncStream(grpc.RpcError):
    """A call on a sync channel whose end is reported while a reader waits for its message."""

    def __init__(self) -> None:
        self.waited = threading.Event()
        self.message = threading.Event()
        self.over = False
        self.callbacks: list[Callable[[], None]] = []

    def __next__(self) -> bytes:
        if self.message.is_set():
            raise self
        self.waited.set()
        assert self.message.wait(20)
        return b"a"

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return True

    def end(self) -> None:
        self.over = True
        for callback in self.callbacks:
            callback()

    def done(self) -> bool:
        return self.over

    def cancelled(self) -> bool:
        return False

    def code(self) -> grpc.StatusCode:
        return UNAVAILABLE

    def details(self) -> str:
        return "gone"

    def trailing_metadata(self) -> tuple[()]:
        return ()


def test_no_fallback_answers_a_sync_stream_whose_message_is_taken_after_its_end_is_reported(
    registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    asked: list[object] = []
    inner = SyncStream()
    stream = WatchedStream(
        inner, guarded_with(registry, lambda *given: asked.append(given), sync=True)
    )
    messages: list[bytes] = []
    reader = threading.Thread(target=lambda: messages.append(next(stream)))
    reader.start()
    assert inner.waited.wait(20)
    over = threading.Event()
    assert stream.add_callback(over.set)
    inner.end()
    assert breaker.outcomes == []  # the reader will know whether a message came before the end
    inner.message.set()
    reader.join(20)
    assert messages == [b"a"]
    assert over.wait(20)
    wait_until(stream.done, "the end")
    assert breaker.outcomes == [Outcome.FAILURE]
    with pytest.raises(SyncStream):
        next(stream)
    assert asked == []
