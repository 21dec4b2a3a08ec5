"""What grpcio does that one would not expect, where a fallback answers: none of it is let through.

What it does to calls without a fallback is in ``test_traps.py`` and ``test_call_end_traps.py``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import Classification, aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_server import ECHO, STREAM, EchoServer, ask, wait_until
from tests.support.grpc_users import AioUser, SyncUser
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedRegistry

FAILURE = [Outcome.FAILURE]
WHY = pytest.mark.parametrize("why", ["rejected", "failed"])
OTHER = "/test.Other/Do"
CANCELS_COUNT = Classification({grpc.StatusCode.CANCELLED: Outcome.FAILURE})


def _instead(way: Way) -> Any:
    return [b"instead"] if way.streams else b"instead"


def _order(way: Way, why: str, registry: WatchedRegistry) -> bytes:
    if why == "rejected":
        registry.get(way.path).open()
    return ask(code="UNAVAILABLE", messages=0)


@WHY
@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_fallback_may_wait_for_a_future_of_the_same_channel(
    way: Way, why: str, server: EchoServer, registry: WatchedRegistry
) -> None:
    # In the thread that reports ends, it would wait forever.
    def fallback(_request: object, _error: object) -> Any:
        reply = channel.unary_unary(OTHER).future(ask()).result(20)
        return [reply] if way.streams else reply

    order = _order(way, why, registry)
    bare = grpc.insecure_channel(server.target)
    with guard(bare, registry=registry, fallbacks={way.path: fallback}) as channel:
        assert b"done" in finish(way, channel, order)


def test_a_plain_callback_that_raises_does_not_stop_the_channels_futures(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    # grpcio's thread does not outlive it (https://github.com/grpc/grpc/pull/42765).
    told: list[str] = []

    def raise_for_future() -> None:
        told.append("future")
        raise ValueError("a callback that raises")

    def raise_for_stream() -> None:
        told.append("stream")
        raise ValueError("a callback that raises")

    bare = grpc.insecure_channel(server.target)
    with guard(bare, registry=registry, fallbacks={"*": b"instead"}) as channel:
        future = channel.unary_unary(ECHO).future(ask(delay=20))
        stream = channel.unary_stream(STREAM)(ask(delay=20))
        assert future.add_callback(raise_for_future)
        assert stream.add_callback(raise_for_stream)
        future.cancel()
        stream.cancel()
        wait_until(lambda: sorted(told) == ["future", "stream"], "the callbacks")
        assert channel.unary_unary(OTHER).future(ask()).result(20) == b"done"


# Who cancelled a call does not show in its status.


class _Asked:
    """A fallback that notes for which calls it was asked."""

    def __init__(self, way: Way) -> None:
        self.calls: list[object] = []
        self._reply = [b"instead"] if way.streams else b"instead"

    def __call__(self, request: object, _error: object) -> Any:
        self.calls.append(request)
        return self._reply


def _sync(server: EchoServer, registry: WatchedRegistry, fallback: Any) -> Any:
    return guard(
        grpc.insecure_channel(server.target),
        registry=registry,
        classify=CANCELS_COUNT,
        fallbacks={"*": fallback},
    )


def _aio(server: EchoServer, registry: WatchedRegistry, fallback: Any) -> Any:
    interceptors = aio_interceptors(
        registry=registry, classify=CANCELS_COUNT, fallbacks={"*": fallback}
    )
    return grpc.aio.insecure_channel(server.target, interceptors=interceptors)


@pytest.mark.parametrize("way", [way for way in SYNC_WAYS if not way.blocks], ids=str)
def test_who_cancels_a_call_does_not_get_its_fallback(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    fallback = _Asked(way)
    with _sync(server, registry, fallback) as channel:
        user = SyncUser(way, channel, server)
        error, *state = finish(way, channel, ask(delay=20), act=user.cancel_in_flight)
    assert user.answers == [True]
    assert "Cancelled" in error[0] or grpc.StatusCode.CANCELLED in error
    assert state[0] is grpc.StatusCode.CANCELLED
    assert state[-4:] == [True, True, False, False]
    breaker = registry.get(way.path)
    wait_until(lambda: breaker.outcomes == FAILURE, "the call's outcome")
    assert fallback.calls == []


@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_what_the_server_cancels_gets_its_fallback_where_that_is_a_failure(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    with _sync(server, registry, _Asked(way)) as channel:
        assert b"instead" in finish(way, channel, ask(code="CANCELLED", messages=0))
    assert registry.get(way.path).outcomes == FAILURE


class _PlainCalls(grpc.UnaryStreamClientInterceptor):
    """Returns streams that are calls and no futures, and so have no ``cancelled()``."""

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return _PlainCall(continuation(details, request))


class _PlainCall:
    def __init__(self, stream: Any) -> None:
        for name in ("add_callback", "code", "details", "trailing_metadata", "done", "__next__"):
            setattr(self, name, getattr(stream, name))

    def __next__(self) -> Any:
        return vars(self)["__next__"]()


def test_a_stream_that_cannot_say_who_cancelled_it_gets_its_fallback(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    within = grpc.intercept_channel(grpc.insecure_channel(server.target), _PlainCalls())
    with guard(within, registry=registry, fallbacks={"*": [b"instead"]}) as channel:
        order = ask(code="UNAVAILABLE", messages=0)
        assert list(channel.unary_stream(STREAM)(order)) == [b"instead"]
    assert registry.get(STREAM).outcomes == FAILURE


@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_who_cancels_an_asyncio_call_does_not_get_its_fallback(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    fallback = _Asked(way)
    async with _aio(server, registry, fallback) as channel:
        user = AioUser(way, channel, server)
        order = ask(delay=20, patience=False)
        error, *state = await aio_finish(way, channel, order, act=user.cancel_in_flight)
    assert user.answers == [True]
    assert error == ("CancelledError",)
    assert state[:3] == [True, True, grpc.StatusCode.CANCELLED]
    assert registry.get(way.path).outcomes == FAILURE
    assert fallback.calls == []


@pytest.mark.parametrize("way", [way for way in AIO_WAYS if way.streams], ids=str)
async def test_a_stream_that_its_reader_gave_up_is_cancelled_and_not_ok(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    async with _aio(server, registry, _Asked(way)) as channel:
        call = way.make(channel, ask(delay=20, patience=False))
        ended: list[Any] = []
        call.add_done_callback(ended.append)
        if way.style == "write":
            await call.write(ask(delay=20, patience=False))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.read(), 0.1)
        await until(lambda: ended == [call], "the done callback")
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert (call.done(), call.cancelled()) == (True, True)
    assert registry.get(way.path).outcomes == FAILURE


@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_what_the_server_cancels_on_asyncio_gets_its_fallback_where_that_is_a_failure(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    async with _aio(server, registry, _Asked(way)) as channel:
        seen = await aio_finish(way, channel, ask(code="CANCELLED", messages=0))
    assert b"instead" in seen
    assert registry.get(way.path).outcomes == FAILURE


# A fallback's reply under another interceptor.


class _Outer:
    """Does with a call what its documentation offers, once the call is there."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def watch(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        self.seen += [call.done(), call.cancelled()]
        call.add_done_callback(lambda ended: self.seen.append(ended is call))
        return call


class _OuterUnaryUnary(_Outer, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _Outer.watch


class _OuterUnaryStream(_Outer, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _Outer.watch


class _OuterStreamUnary(_Outer, grpc.aio.StreamUnaryClientInterceptor):
    intercept_stream_unary = _Outer.watch


class _OuterStreamStream(_Outer, grpc.aio.StreamStreamClientInterceptor):
    intercept_stream_stream = _Outer.watch


_OUTER: dict[str, type[Any]] = {
    "unary_unary": _OuterUnaryUnary,
    "unary_stream": _OuterUnaryStream,
    "stream_unary": _OuterStreamUnary,
    "stream_stream": _OuterStreamStream,
}


@WHY
@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_an_outer_interceptor_has_a_whole_call_where_a_fallback_answers(
    way: Way, why: str, server: EchoServer, registry: WatchedRegistry
) -> None:
    order = _order(way, why, registry)
    outer = _OUTER[way.shape]()
    guards = aio_interceptors(registry=registry, fallbacks={"*": _instead(way)})
    async with grpc.aio.insecure_channel(server.target, interceptors=[outer, *guards]) as channel:
        seen = await aio_finish(way, channel, order)
        assert b"instead" in seen
        assert grpc.StatusCode.OK in seen
        await until(lambda: outer.seen == [False, False, True], "what the interceptor sees")
