"""Unary calls on a sync channel: what the user sees, and what the breaker counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.errors import CircuitOpenError
from fusewire.interceptors import (
    RejectedCall,
    guard,
)
from fusewire.interceptors._classification import DEFAULT_OUTCOMES
from tests.support.grpc_calls import STYLES, call, seen
from tests.support.grpc_server import ECHO, ask, wait_until
from tests.support.ports import reserve_port

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry
    from tests.support.grpc_server import EchoServer

OK, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED


@STYLES
def test_an_answered_call_is_seen_as_without_a_guard(
    bare: grpc.Channel, guarded: grpc.Channel, breaker: WatchedBreaker, style: str
) -> None:
    request = ask(reply="hello")
    assert seen(guarded.unary_unary(ECHO), style, request) == b"hello"
    assert seen(bare.unary_unary(ECHO), style, request) == b"hello"
    wait_until(lambda: breaker.outcomes == [OK], "the call's outcome")


@STYLES
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
def test_every_status_is_seen_as_without_a_guard(
    bare: grpc.Channel,
    server: EchoServer,
    registry: WatchedRegistry,
    style: str,
    code: grpc.StatusCode,
) -> None:
    request = ask(code=code.name, details="as asked", trailing=(("why", "test"),))
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        with_guard = seen(channel.unary_unary(ECHO), style, request)
        assert with_guard == seen(bare.unary_unary(ECHO), style, request)
        assert with_guard[1] is code
        breaker = registry.get(ECHO)
        wait_until(lambda: breaker.outcomes == [DEFAULT_OUTCOMES[code]], "the call's outcome")


@STYLES
def test_a_handler_that_raises_counts_as_a_failure(
    bare: grpc.Channel, guarded: grpc.Channel, breaker: WatchedBreaker, style: str
) -> None:
    request = ask(raises=True)
    with_guard = seen(guarded.unary_unary(ECHO), style, request)
    assert with_guard == seen(bare.unary_unary(ECHO), style, request)
    wait_until(lambda: breaker.outcomes == [FAILURE], "the call's outcome")


@STYLES
def test_a_dead_server_is_seen_as_without_a_guard_until_the_circuit_opens(
    registry: WatchedRegistry, style: str
) -> None:
    target = f"127.0.0.1:{reserve_port()}"
    with grpc.insecure_channel(target) as bare:
        kind, code, *_ = seen(bare.unary_unary(ECHO), style, ask())
    with guard(grpc.insecure_channel(target), registry=registry) as channel:
        method = channel.unary_unary(ECHO)
        for _ in range(2):
            assert seen(method, style, ask())[:2] == (kind, code)
        breaker = registry.get(ECHO)
        wait_until(lambda: breaker.state == "open", "an open circuit")
        with pytest.raises(CircuitOpenError):
            call(method, style, ask())
        assert breaker.outcomes == [FAILURE, FAILURE]


@STYLES
def test_a_hung_server_costs_the_deadline_and_counts(
    mortal: EchoServer, registry: WatchedRegistry, style: str
) -> None:
    with guard(grpc.insecure_channel(mortal.target), registry=registry) as channel:
        method = channel.unary_unary(ECHO)
        assert call(method, style, ask()) == b"done"
        mortal.pause()
        assert seen(method, style, ask(), timeout=0.3)[1] is grpc.StatusCode.DEADLINE_EXCEEDED
        breaker = registry.get(ECHO)
        wait_until(lambda: breaker.outcomes == [OK, FAILURE], "the call's outcome")


@STYLES
def test_a_deadline_that_has_passed_already_does_not_count(
    guarded: grpc.Channel, breaker: WatchedBreaker, style: str
) -> None:
    for timeout in (0, -1):
        result = seen(guarded.unary_unary(ECHO), style, ask(delay=5), timeout=timeout)
        assert result[1] is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: breaker.outcomes == [IGNORED, IGNORED], "the calls' outcomes")


@STYLES
@pytest.mark.parametrize(
    "metadata", [(("Bad Key", "x"),), (("k", "\n"),), (("k", 1),), (("k-bin", "text"),), 5]
)
def test_invalid_metadata_are_seen_as_without_a_guard(
    bare: grpc.Channel, guarded: grpc.Channel, breaker: WatchedBreaker, style: str, metadata: Any
) -> None:
    with_guard = seen(guarded.unary_unary(ECHO), style, ask(), metadata=metadata)
    assert with_guard == seen(bare.unary_unary(ECHO), style, ask(), metadata=metadata)
    wait_until(lambda: breaker.outcomes == [IGNORED], "the call's outcome")


def broken(_: Any) -> None:
    raise ValueError("broken")


@STYLES
@pytest.mark.parametrize("side", ["request_serializer", "response_deserializer"])
def test_a_broken_serializer_is_seen_as_without_a_guard(
    bare: grpc.Channel, guarded: grpc.Channel, breaker: WatchedBreaker, style: str, side: Any
) -> None:
    with_guard = seen(guarded.unary_unary(ECHO, **{side: broken}), style, ask())
    assert with_guard == seen(bare.unary_unary(ECHO, **{side: broken}), style, ask())
    assert with_guard[1] is grpc.StatusCode.INTERNAL
    wait_until(lambda: breaker.outcomes == [IGNORED], "the call's outcome")


@STYLES
def test_an_open_circuit_rejects_with_an_error_that_grpc_users_handle(
    server: EchoServer,
    guarded: grpc.Channel,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    style: str,
) -> None:
    breaker.open()
    registry.clock.pass_time(10)
    before = server.seen()["begun"]
    with pytest.raises(CircuitOpenError) as raised:
        call(guarded.unary_unary(ECHO), style, ask())
    error = raised.value
    assert isinstance(error, grpc.RpcError)
    assert isinstance(error, RejectedCall)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert (error.name, error.state, error.retry_after) == (ECHO, "open", 20.0)
    assert server.seen()["begun"] == before
    assert breaker.outcomes == []
