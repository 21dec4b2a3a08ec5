"""Futures, cancelling and closing on a sync channel."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import (
    Classification,
    guard,
)
from tests.support.grpc_calls import STYLES, call, seen
from tests.support.grpc_server import ECHO, ask, wait_until

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry
    from tests.support.grpc_server import EchoServer

OK, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED


def test_a_rejected_future_is_a_future_that_is_over(
    guarded: grpc.Channel, breaker: WatchedBreaker
) -> None:
    breaker.open()
    future = guarded.unary_unary(ECHO).future(ask())
    called: list[Any] = []
    future.add_done_callback(called.append)
    wait_until(lambda: called == [future], "the callback, from another thread")
    assert future.done()
    assert future.exception() is future


def test_a_future_is_the_very_object_of_the_channel_and_does_not_block(
    bare: grpc.Channel, guarded: grpc.Channel
) -> None:
    future = guarded.unary_unary(ECHO).future(ask(delay=20))
    assert not future.done()
    assert type(future) is type(bare.unary_unary(ECHO).future(ask()))
    future.cancel()


def test_with_call_gives_the_call_of_the_channel(guarded: grpc.Channel) -> None:
    response, made = guarded.unary_unary(ECHO).with_call(ask(trailing=(("why", "test"),)))
    assert response == b"done"
    assert made.code() is grpc.StatusCode.OK
    assert ("why", "test") in [tuple(pair) for pair in made.trailing_metadata()]


@pytest.mark.parametrize("fallbacks", [None, {"*": b"instead"}])
def test_cancelling_a_future_reaches_the_server_and_does_not_count(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, fallbacks: Any
) -> None:
    with guard(
        grpc.insecure_channel(server.target), registry=registry, fallbacks=fallbacks
    ) as channel:
        before = server.seen()
        future = channel.unary_unary(ECHO).future(ask(delay=20))
        wait_until(lambda: server.seen()["begun"] == before["begun"] + 1, "the call's begin")
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        assert future.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(grpc.FutureCancelledError):
            future.result()
        wait_until(lambda: server.seen()["cancelled"] == before["cancelled"] + 1, "the cancel")
        wait_until(lambda: breaker.outcomes == [IGNORED], "the call's outcome")


def test_cancelling_a_future_asks_no_fallback_whatever_cancelling_means(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    asked: list[Any] = []
    with guard(
        grpc.insecure_channel(server.target),
        registry=registry,
        fallbacks={"*": lambda *args: asked.append(args)},
        classify=Classification({grpc.StatusCode.CANCELLED: FAILURE}),
    ) as channel:
        future = channel.unary_unary(ECHO).future(ask(delay=20))
        called: list[Any] = []
        future.add_done_callback(called.append)
        assert future.cancel()
        wait_until(lambda: called == [future], "the done callback")
        with pytest.raises(grpc.FutureCancelledError):
            future.result()
    assert breaker.outcomes == [FAILURE]
    assert asked == []


@pytest.mark.parametrize("fallbacks", [None, {"*": b"instead"}])
def test_cancelling_a_future_at_once_does_not_count(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, fallbacks: Any
) -> None:
    with guard(
        grpc.insecure_channel(server.target), registry=registry, fallbacks=fallbacks
    ) as channel:
        future = channel.unary_unary(ECHO).future(ask(delay=20))
        assert future.cancel()
        wait_until(lambda: breaker.outcomes == [IGNORED], "the call's outcome")


@pytest.mark.parametrize("fallbacks", [None, {"*": b"instead"}])
def test_cancelling_a_future_that_is_over_changes_nothing(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, fallbacks: Any
) -> None:
    with guard(
        grpc.insecure_channel(server.target), registry=registry, fallbacks=fallbacks
    ) as channel:
        future = channel.unary_unary(ECHO).future(ask())
        assert future.result() == b"done"
        assert not future.cancel()
        assert not future.cancelled()
        assert future.result() == b"done"
        wait_until(lambda: breaker.outcomes == [OK], "the call's outcome")


@pytest.mark.parametrize("fallbacks", [None, {"*": b"instead"}])
def test_a_future_that_its_user_drops_is_cancelled_and_does_not_count(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, fallbacks: Any
) -> None:
    with guard(
        grpc.insecure_channel(server.target), registry=registry, fallbacks=fallbacks
    ) as channel:
        before = server.seen()
        future = channel.unary_unary(ECHO).future(ask(delay=20))
        wait_until(lambda: server.seen()["begun"] == before["begun"] + 1, "the call's begin")
        dropped = weakref.ref(future)
        del future
        gc.collect()
        assert dropped() is None
        wait_until(lambda: server.seen()["cancelled"] == before["cancelled"] + 1, "the cancel")
        wait_until(lambda: breaker.outcomes == [IGNORED], "the call's outcome")


@pytest.mark.parametrize("fallbacks", [None, {"*": b"instead"}])
def test_a_dropped_future_with_a_done_callback_still_calls_it(
    server: EchoServer, registry: WatchedRegistry, fallbacks: Any
) -> None:
    called = threading.Event()
    with guard(
        grpc.insecure_channel(server.target), registry=registry, fallbacks=fallbacks
    ) as channel:
        channel.unary_unary(ECHO).future(ask(delay=0.2)).add_done_callback(lambda _: called.set())
        gc.collect()
        assert called.wait(20)


@pytest.mark.parametrize("fallbacks", [None, {"*": b"instead"}])
@pytest.mark.parametrize("code", ["OK", "INTERNAL"])
def test_a_done_callback_that_raises_harms_neither_the_channel_nor_the_count(
    server: EchoServer,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    fallbacks: Any,
    code: str,
) -> None:
    with guard(
        grpc.insecure_channel(server.target), registry=registry, fallbacks=fallbacks
    ) as channel:
        method = channel.unary_unary(ECHO)
        future = method.future(ask(delay=0.2, code=code))
        called = []
        future.add_done_callback(lambda _: 1 / 0)
        future.add_done_callback(called.append)
        wait_until(lambda: called == [future], "the second callback")
        assert method.future(ask()).result(timeout=20) == b"done"
        wait_until(lambda: len(breaker.outcomes) == 2, "the calls' outcomes")
        assert breaker.every_permit_settled_once()


@STYLES
@pytest.mark.parametrize("fallbacks", [None, {"*": b"instead"}])
def test_closing_the_channel_ends_the_calls_in_flight_without_counting_them(
    server: EchoServer,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    style: str,
    fallbacks: Any,
) -> None:
    channel = guard(grpc.insecure_channel(server.target), registry=registry, fallbacks=fallbacks)
    before = server.seen()["begun"]
    result = []
    method = channel.unary_unary(ECHO)
    caller = threading.Thread(target=lambda: result.append(seen(method, style, ask(delay=20))))
    caller.start()
    wait_until(lambda: server.seen()["begun"] == before + 1, "the call's begin")
    channel.close()
    caller.join(20)
    assert result[0][1] is grpc.StatusCode.CANCELLED
    wait_until(lambda: breaker.outcomes == [IGNORED], "the call's outcome")


@STYLES
def test_a_closed_channel_is_seen_as_without_a_guard(
    server: EchoServer, registry: WatchedRegistry, style: str
) -> None:
    bare = grpc.insecure_channel(server.target)
    guarded = guard(grpc.insecure_channel(server.target), registry=registry)
    methods = [channel.unary_unary(ECHO) for channel in (bare, guarded)]
    bare.close()
    guarded.close()
    assert seen(methods[0], style, ask()) == seen(methods[1], style, ask())
    assert registry.get(ECHO).outcomes == [IGNORED]


def test_a_guarded_channel_keeps_subscribe_and_close(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    states = []
    threads = set(threading.enumerate())
    channel = guard(grpc.insecure_channel(server.target), registry=registry)
    with channel:
        channel.subscribe(states.append, try_to_connect=True)
        wait_until(lambda: grpc.ChannelConnectivity.READY in states, "a connection")
        grpc.channel_ready_future(channel).result(20)
        channel.unsubscribe(states.append)
        # grpcio's thread that watches the connection raises if the channel is closed under it.
        wait_until(lambda: set(threading.enumerate()) <= threads, "the end of the watching thread")
    with pytest.raises(ValueError, match="closed"):
        channel.unary_unary(ECHO)(ask())


@STYLES
def test_a_generated_stubs_private_arguments_pass_through(
    guarded: grpc.Channel, style: str
) -> None:
    method = guarded.unary_unary(
        ECHO,
        request_serializer=bytes,
        response_deserializer=bytes.decode,
        _registered_method=True,
    )
    assert call(method, style, ask()) == "done"
