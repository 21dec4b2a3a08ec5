"""Fallbacks on a sync channel."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.errors import CircuitOpenError
from fusewire.interceptors import FallbackDeclined, guard, without_fallbacks
from fusewire.operation import entered_operation, operation
from tests.support.grpc_calls import STYLES, call
from tests.support.grpc_server import ECHO, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry
    from tests.support.grpc_server import EchoServer

    ChannelWith = Callable[..., grpc.Channel]

DOWN = ask(code="UNAVAILABLE", details="down", trailing=(("why", "test"),))


@STYLES
@pytest.mark.parametrize(
    "fallback",
    [b"instead", lambda request, error: b"instead", lambda request, error: error and b"instead"],
)
def test_a_failure_is_answered_by_the_fallback(
    channel_with: ChannelWith, breaker: WatchedBreaker, style: str, fallback: Any
) -> None:
    method = channel_with(fallback).unary_unary(ECHO)
    assert call(method, style, DOWN) == b"instead"
    assert breaker.outcomes == [Outcome.FAILURE]


@STYLES
def test_a_rejection_is_answered_by_the_fallback(
    server: EchoServer, channel_with: ChannelWith, breaker: WatchedBreaker, style: str
) -> None:
    breaker.open()
    told = []
    method = channel_with(lambda *args: told.append(args) or b"instead").unary_unary(ECHO)
    before = server.seen()["begun"]
    request = ask()
    assert call(method, style, request) == b"instead"
    assert server.seen()["begun"] == before
    assert told[0][0] is request
    assert isinstance(told[0][1], CircuitOpenError)
    assert isinstance(told[0][1], grpc.RpcError)


@STYLES
def test_a_fallback_is_not_asked_for_what_does_not_count(
    channel_with: ChannelWith, style: str
) -> None:
    asked = []
    method = channel_with(lambda *args: asked.append(args)).unary_unary(ECHO)
    for code in ("NOT_FOUND", "CANCELLED", "RESOURCE_EXHAUSTED"):
        with pytest.raises(grpc.RpcError) as raised:
            call(method, style, ask(code=code))
        assert raised.value.code().name == code
    assert call(method, style, ask()) == b"done"
    assert asked == []


@STYLES
def test_a_call_without_need_of_its_fallback_is_seen_as_it_is(
    channel_with: ChannelWith, style: str
) -> None:
    method = channel_with(b"instead").unary_unary(ECHO)
    assert call(method, style, ask(reply="hello")) == b"hello"


def test_the_call_says_that_a_fallback_answered(
    channel_with: ChannelWith, breaker: WatchedBreaker
) -> None:
    method = channel_with(b"instead", dependency="eu").unary_unary(ECHO)
    _, answered = method.with_call(DOWN)
    future = method.future(DOWN)
    future.result()
    for made in (answered, future):
        assert made.code() is grpc.StatusCode.OK
        assert made.details() == ""
        assert made.debug_error_string() == ""
        assert made.trailing_metadata() == (("fusewire-fallback", "eu/test.Echo/Do"),)
        assert made.initial_metadata() is not None
        assert made.exception() is None
        assert made.traceback() is None
        assert made.done()
        assert not made.cancelled()
        assert not made.running()
        assert not made.is_active()
        assert not made.cancel()
        assert not made.add_callback(lambda: None)
        called = []
        made.add_done_callback(called.append)
        assert called == [made]


def test_whether_a_fallback_is_suppressed_is_decided_when_the_call_is_made(
    channel_with: ChannelWith,
) -> None:
    method = channel_with(b"instead").unary_unary(ECHO)
    slow = ask(code="UNAVAILABLE", delay=0.3)
    with without_fallbacks():
        inside = method.future(slow)
    outside = method.future(slow)
    with without_fallbacks():
        assert outside.result(20) == b"instead"
    with pytest.raises(grpc.RpcError):
        inside.result(20)


def failing(error: Any) -> Any:
    def fallback(request: bytes, failure: Any) -> None:
        raise error

    return fallback


@STYLES
def test_a_fallback_that_fails_leaves_the_original_error(
    channel_with: ChannelWith, caplog: pytest.LogCaptureFixture, style: str
) -> None:
    method = channel_with(failing(OSError("no disk"))).unary_unary(ECHO)
    with pytest.raises(grpc.RpcError) as raised:
        call(method, style, DOWN)
    error = raised.value
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "down")
    assert ("why", "test") in [tuple(pair) for pair in error.trailing_metadata()]
    assert isinstance(error.__context__, OSError)
    assert "no disk" in error.__notes__[0]
    assert "the fallback of /test.Echo/Do failed" in caplog.text


@STYLES
def test_a_fallback_that_fails_leaves_the_rejection(
    channel_with: ChannelWith, breaker: WatchedBreaker, style: str
) -> None:
    breaker.open()
    method = channel_with(failing(OSError("no disk"))).unary_unary(ECHO)
    with pytest.raises(CircuitOpenError) as raised:
        call(method, style, DOWN)
    assert isinstance(raised.value, grpc.RpcError)
    assert isinstance(raised.value.__context__, OSError)


@STYLES
@pytest.mark.parametrize("opened", [False, True])
def test_a_fallback_that_declines_may_add_to_the_errors_metadata(
    channel_with: ChannelWith,
    breaker: WatchedBreaker,
    caplog: pytest.LogCaptureFixture,
    style: str,
    opened: Any,
) -> None:
    if opened:
        breaker.open()
        caplog.clear()  # of the opening
    declined = FallbackDeclined("not mine", metadata=(("parked", "no"),))
    method = channel_with(failing(declined)).unary_unary(ECHO)
    with pytest.raises(grpc.RpcError) as raised:
        call(method, style, DOWN)
    error = raised.value
    metadata = [tuple(pair) for pair in error.trailing_metadata()]
    assert metadata[-1] == ("parked", "no")
    assert len(metadata) > 1
    assert isinstance(error, CircuitOpenError) is opened
    assert not hasattr(error, "__notes__")
    assert caplog.text == ""


@STYLES
def test_a_fallback_that_declines_plainly_leaves_the_error_as_it_is(
    channel_with: ChannelWith, style: str
) -> None:
    method = channel_with(failing(FallbackDeclined())).unary_unary(ECHO)
    with pytest.raises(grpc.RpcError) as raised:
        call(method, style, DOWN)
    assert [tuple(pair) for pair in raised.value.trailing_metadata()] == [("why", "test")]


@STYLES
def test_a_fallback_that_turns_out_to_be_a_coroutine_leaves_the_original_error(
    channel_with: ChannelWith, style: str
) -> None:
    async def later() -> Any:
        return b"never"

    method = channel_with(lambda request, error: later()).unary_unary(ECHO)
    with pytest.raises(grpc.RpcError) as raised:
        call(method, style, DOWN)
    assert "coroutine" in raised.value.__notes__[0]


@pytest.mark.parametrize("opened", [False, True])
def test_a_futures_fallback_holds_up_neither_the_caller_nor_other_futures(
    channel_with: ChannelWith, breaker: WatchedBreaker, opened: Any
) -> None:
    if opened:
        breaker.open()
    release = threading.Event()
    names = []

    def slow(request: bytes, error: Any) -> Any:
        names.append(threading.current_thread().name)
        assert release.wait(20)
        return b"instead"

    channel = channel_with(slow)
    future = channel.unary_unary(ECHO).future(DOWN)
    wait_until(lambda: names, "the fallback's begin")
    assert not future.done()
    assert future.running()
    assert future.is_active()
    assert not future.cancel()
    with pytest.raises(grpc.FutureTimeoutError):
        future.result(0.01)
    assert channel.unary_unary("/test.Other/Do").future(ask()).result(20) == b"done"
    called = []
    future.add_done_callback(called.append)
    release.set()
    assert future.result(20) == b"instead"
    wait_until(lambda: called == [future], "the done callback")
    assert names[0].startswith("fusewire-fallback")


def test_a_futures_fallback_runs_in_the_callers_context(channel_with: ChannelWith) -> None:
    seen = []
    method = channel_with(lambda *_: seen.append(entered_operation()) or b"x").unary_unary(ECHO)
    with operation("op-1") as work:
        future = method.future(DOWN)
    future.result(20)
    assert seen == [work]


def test_a_dropped_futures_fallback_still_serves_its_done_callback(
    channel_with: ChannelWith,
) -> None:
    called = []
    channel = channel_with(b"instead")
    down = ask(code="UNAVAILABLE", delay=0.1)
    channel.unary_unary(ECHO).future(down).add_done_callback(lambda f: called.append(f.result()))
    wait_until(lambda: called == [b"instead"], "the done callback")


def test_a_future_falls_back_when_the_server_dies_with_the_call_in_flight(
    mortal: EchoServer, registry: WatchedRegistry
) -> None:
    with guard(
        grpc.insecure_channel(mortal.target), registry=registry, fallbacks={"*": b"instead"}
    ) as channel:
        future = channel.unary_unary(ECHO).future(ask(delay=20))
        wait_until(lambda: mortal.seen()["begun"] == 1, "the call's begin")
        mortal.kill()
        assert future.result(20) == b"instead"
    assert registry.get(ECHO).outcomes == [Outcome.FAILURE]


@STYLES
def test_a_hung_servers_calls_fall_back_at_their_deadline(
    mortal: EchoServer, registry: WatchedRegistry, style: str
) -> None:
    with guard(
        grpc.insecure_channel(mortal.target), registry=registry, fallbacks={"*": b"instead"}
    ) as channel:
        method = channel.unary_unary(ECHO)
        call(method, style, ask())
        mortal.pause()
        assert call(method, style, ask(), timeout=0.3) == b"instead"


def test_the_most_specific_fallback_wins_and_none_takes_it_away(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    fallbacks = {"*": b"any", "/test.Echo/*": b"echo", "/test.Echo/None": None}
    with guard(
        grpc.insecure_channel(server.target), registry=registry, fallbacks=fallbacks
    ) as channel:
        assert channel.unary_unary("/test.Other/Do")(DOWN) == b"any"
        assert channel.unary_unary(ECHO)(DOWN) == b"echo"
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/test.Echo/None")(DOWN)
