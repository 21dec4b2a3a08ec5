"""Fallbacks on a sync channel that take part in the call from the start."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.errors import CircuitOpenError
from fusewire.interceptors import without_fallbacks
from fusewire.operation import IDEMPOTENCY_KEY, operation
from tests.support.grpc_calls import STYLES, call
from tests.support.grpc_keys import key_of
from tests.support.grpc_server import ECHO, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.grpc_guard import WatchedBreaker
    from tests.support.grpc_server import EchoServer

    ChannelWith = Callable[..., grpc.Channel]

DOWN = ask(code="UNAVAILABLE", details="down")


class Parking:
    """A fallback that takes part from the start, as store-and-forward does."""

    def __init__(self) -> None:
        self.asked = []
        self.prepared = []
        self.threads = []
        self.declines = None

    def prepare(self, call: Any) -> Any:
        self.prepared.append(call)
        return replace(call, metadata=(*call.metadata, ("key", "k-1")))

    async def reply(self, call: Any, request: bytes, error: Any) -> Any:
        return self.reply_sync(call, request, error)

    def reply_sync(self, call: Any, request: bytes, error: Any) -> Any:
        self.asked.append((call, request, error))
        self.threads.append(threading.current_thread())
        if self.declines is not None:
            raise self.declines
        return b"pending"


@STYLES
def test_fallbacks_are_suppressed_for_the_calls_made_within_the_block(
    channel_with: ChannelWith, breaker: WatchedBreaker, style: str
) -> None:
    parking = Parking()
    method = channel_with(parking).unary_unary(ECHO)
    with without_fallbacks(), pytest.raises(grpc.RpcError) as raised:
        call(method, style, DOWN)
    assert raised.value.details() == "down"
    breaker.open()
    with without_fallbacks(), pytest.raises(CircuitOpenError):
        call(method, style, DOWN)
    assert parking.asked == parking.prepared == []
    assert call(method, style, DOWN) == b"pending"


@STYLES
def test_a_call_fallback_prepares_the_call_and_is_given_what_it_prepared(
    server: EchoServer, channel_with: ChannelWith, style: str
) -> None:
    parking = Parking()
    method = channel_with(parking, dependency="eu").unary_unary(ECHO)
    assert call(method, style, DOWN, timeout=5, metadata=(("mine", "x"),)) == b"pending"
    assert ["key", "k-1"] in server.seen()["metadata"]
    assert ["mine", "x"] in server.seen()["metadata"]
    told, request, error = parking.asked[0]
    assert parking.prepared == [replace(told, metadata=(("mine", "x"),))]
    assert (told.method, told.breaker, told.timeout) == (ECHO, "eu/test.Echo/Do", 5)
    assert told.metadata == (("mine", "x"), ("key", "k-1"))
    assert request == DOWN
    assert error.code() is grpc.StatusCode.UNAVAILABLE


@STYLES
def test_a_call_fallback_prepares_calls_that_need_no_fallback_too(
    server: EchoServer, channel_with: ChannelWith, style: str
) -> None:
    parking = Parking()
    call(channel_with(parking).unary_unary(ECHO), style, ask())
    assert ["key", "k-1"] in server.seen()["metadata"]
    assert parking.asked == []


def test_a_call_fallback_sees_the_operations_key(channel_with: ChannelWith) -> None:
    parking = Parking()
    method = channel_with(parking, idempotent={ECHO}).unary_unary(ECHO)
    with operation("op-1"):
        method(ask())
    assert parking.prepared[0].metadata == ((IDEMPOTENCY_KEY, key_of(ask())),)


@STYLES
def test_a_call_whose_preparation_fails_goes_as_it_was_and_without_its_fallback(
    server: EchoServer, channel_with: ChannelWith, caplog: pytest.LogCaptureFixture, style: str
) -> None:
    parking = Parking()
    parking.prepare = lambda call: 1 / 0
    method = channel_with(parking).unary_unary(ECHO)
    assert call(method, style, ask(), metadata=(("mine", "x"),)) == b"done"
    assert ["mine", "x"] in server.seen()["metadata"]
    with pytest.raises(grpc.RpcError):
        call(method, style, DOWN)
    assert parking.asked == []
    assert "goes without its fallback" in caplog.text


@STYLES
def test_metadata_that_are_none_fail_as_without_a_fallback(
    channel_with: ChannelWith, style: str
) -> None:
    parking = Parking()
    method = channel_with(parking).unary_unary(ECHO)
    with pytest.raises(TypeError):
        call(method, style, ask(), metadata=5)
    assert parking.asked == []


def test_a_blocking_calls_fallback_runs_in_the_callers_thread(channel_with: ChannelWith) -> None:
    parking = Parking()
    channel_with(parking).unary_unary(ECHO)(DOWN)
    assert parking.threads == [threading.current_thread()]
