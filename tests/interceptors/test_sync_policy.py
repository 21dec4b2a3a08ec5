"""Which breaker a sync call has, what its end means, probes, operations, other interceptors."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # no py.typed

from fusewire.breaker import BreakerSettings, Outcome, default_registry
from fusewire.errors import CircuitOpenError
from fusewire.interceptors import (
    Classification,
    guard,
)
from fusewire.interceptors._classification import DEFAULT_OUTCOMES
from fusewire.operation import operation
from tests.support.grpc_calls import STYLES, call, seen
from tests.support.grpc_guard import WatchedRegistry
from tests.support.grpc_server import ECHO, HEALTH, ask, wait_until

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedBreaker
    from tests.support.grpc_server import EchoServer

OK, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED


def test_the_circuit_closes_again_after_probes_that_were_answered(
    guarded: grpc.Channel, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    method = guarded.unary_unary(ECHO)
    for _ in range(2):
        seen(method, "call", ask(code="UNAVAILABLE"))
    assert breaker.state == "open"
    registry.clock.pass_time(31)
    assert seen(method, "call", ask(code="NOT_FOUND"))[1] is grpc.StatusCode.NOT_FOUND
    assert breaker.state == "closed"


def test_a_cancelled_probe_gives_its_place_back(
    guarded: grpc.Channel, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    breaker.open()
    registry.clock.pass_time(31)
    method = guarded.unary_unary(ECHO)
    probe = method.future(ask(delay=20))
    with pytest.raises(CircuitOpenError):
        method(ask())
    probe.cancel()
    wait_until(lambda: breaker.outcomes == [IGNORED], "the probe's outcome")
    assert method(ask()) == b"done"
    assert breaker.state == "closed"


def test_a_probe_with_a_deadline_waits_for_the_connection(
    mortal: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    options = [("grpc.initial_reconnect_backoff_ms", 1500), ("grpc.min_reconnect_backoff_ms", 1500)]
    mortal.kill()
    with guard(grpc.insecure_channel(mortal.target, options=options), registry=registry) as channel:
        method = channel.unary_unary(ECHO)
        for _ in range(2):
            seen(method, "call", ask())
        assert breaker.state == "open"
        registry.clock.pass_time(31)
        mortal.start()
        assert method(ask(), timeout=20) == b"done"
        assert breaker.state == "closed"


def test_a_probe_whose_user_decided_not_to_wait_does_not(
    mortal: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    options = [("grpc.initial_reconnect_backoff_ms", 9000), ("grpc.min_reconnect_backoff_ms", 9000)]
    mortal.kill()
    with guard(grpc.insecure_channel(mortal.target, options=options), registry=registry) as channel:
        method = channel.unary_unary(ECHO)
        for _ in range(2):
            seen(method, "call", ask())
        registry.clock.pass_time(31)
        mortal.start()
        result = seen(method, "call", ask(), timeout=20, wait_for_ready=False)
        assert result[1] is grpc.StatusCode.UNAVAILABLE


def test_health_checks_and_reflection_are_never_guarded(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    reflection = "/grpc.reflection.v1alpha.ServerReflection/Info"
    with guard(
        grpc.insecure_channel(server.target), BreakerSettings(), registry=registry
    ) as channel:
        for method in (HEALTH, reflection):
            for _ in range(3):
                result = seen(channel.unary_unary(method), "call", ask(code="UNAVAILABLE"))
                assert result[0] == "_InactiveRpcError"
    assert list(registry) == []


def test_each_method_has_the_settings_of_its_most_specific_selector(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    settings = {
        "*": BreakerSettings(failure_threshold=4),
        "/test.Echo/*": BreakerSettings(failure_threshold=1),
        "/test.Echo/Free": None,
    }
    with guard(grpc.insecure_channel(server.target), settings, registry=registry) as channel:
        for method in ("/test.Echo/Do", "/test.Echo/Free", "/test.Other/Do"):
            seen(channel.unary_unary(method), "call", ask(code="UNAVAILABLE"))
    states = {breaker.name: breaker.state for breaker in registry}
    assert states == {"/test.Echo/Do": "open", "/test.Other/Do": "closed"}


def test_a_dependency_leads_the_breakers_name(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    with guard(
        grpc.insecure_channel(server.target), dependency="echo-eu", registry=registry
    ) as channel:
        channel.unary_unary(ECHO)(ask())
    assert [breaker.name for breaker in registry] == ["echo-eu/test.Echo/Do"]


def test_all_channels_of_the_process_share_a_methods_breaker(server: EchoServer) -> None:
    method = "/test.Shared/Do"
    with (
        guard(grpc.insecure_channel(server.target)) as one,
        guard(grpc.insecure_channel(server.target)) as other,
    ):
        for _ in range(5):
            seen(one.unary_unary(method), "call", ask(code="UNAVAILABLE"))
        with pytest.raises(CircuitOpenError):
            other.unary_unary(method)(ask())
    assert default_registry().get(method).state == "open"


def test_threads_share_a_breaker_and_settle_every_permit_once(server: EchoServer) -> None:
    registry = WatchedRegistry(BreakerSettings(failure_threshold=1_000_000))
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        method = channel.unary_unary(ECHO)

        def work() -> None:
            for number in range(25):
                seen(
                    method, ("call", "future")[number % 2], ask(code=("OK", "INTERNAL")[number % 2])
                )

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        breaker = registry.get(ECHO)
        wait_until(lambda: len(breaker.outcomes) == 200, "the calls' outcomes")
        assert breaker.outcomes.count(OK) == 104
        assert breaker.outcomes.count(FAILURE) == 96
        assert breaker.every_permit_settled_once()


def retry_info(seconds: int) -> bytes:
    status = status_pb2.Status(code=8, message="later")
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds = seconds
    status.details.add().Pack(info)
    return status.SerializeToString()


@STYLES
@pytest.mark.parametrize(
    ("hint", "seconds"),
    [
        ({"trailing": (("grpc-retry-pushback-ms", "7000"),)}, 7.0),
        ({"status_details": retry_info(9)}, 9.0),
    ],
)
def test_a_servers_hint_is_passed_to_the_breaker(
    guarded: grpc.Channel, breaker: WatchedBreaker, style: str, hint: Any, seconds: Any
) -> None:
    request = ask(code="RESOURCE_EXHAUSTED", details="later", **hint)
    result = seen(guarded.unary_unary(ECHO), style, request)
    assert result[1] is grpc.StatusCode.RESOURCE_EXHAUSTED
    wait_until(lambda: breaker.told == [(FAILURE, seconds)], "the call's outcome")


@STYLES
def test_what_a_status_means_can_be_told_per_method(
    server: EchoServer, registry: WatchedRegistry, style: str
) -> None:
    classify = {
        ECHO: Classification({grpc.StatusCode.NOT_FOUND: FAILURE}),
        "/test.Other/Do": lambda end: IGNORED if end.details == "mine" else OK,
    }
    with guard(
        grpc.insecure_channel(server.target), registry=registry, classify=classify
    ) as channel:
        seen(channel.unary_unary(ECHO), style, ask(code="NOT_FOUND"))
        seen(channel.unary_unary("/test.Other/Do"), style, ask(code="INTERNAL", details="mine"))
        wait_until(lambda: registry.get(ECHO).outcomes == [FAILURE], "the call's outcome")
        other = registry.get("/test.Other/Do")
        wait_until(lambda: other.outcomes == [IGNORED], "the call's outcome")


@STYLES
@pytest.mark.parametrize("classify", [lambda _: 1 / 0, lambda _: "nonsense", sys.exit])
def test_a_classify_that_fails_changes_nothing_for_the_caller(
    server: EchoServer,
    registry: WatchedRegistry,
    caplog: pytest.LogCaptureFixture,
    style: str,
    classify: Any,
) -> None:
    with guard(
        grpc.insecure_channel(server.target), registry=registry, classify=classify
    ) as channel:
        result = seen(channel.unary_unary(ECHO), style, ask(code="INTERNAL", details="x"))
        assert result[1:3] == (grpc.StatusCode.INTERNAL, "x")
        breaker = registry.get(ECHO)
        wait_until(lambda: breaker.outcomes == [IGNORED], "the call's outcome")
    assert "not counted" in caplog.text


@STYLES
def test_a_registry_that_fails_changes_nothing_for_the_caller(
    server: EchoServer, caplog: pytest.LogCaptureFixture, style: str
) -> None:
    class Broken:
        def get(self, name: Any, settings: Any = None) -> None:
            raise OSError("no registry")

    with guard(grpc.insecure_channel(server.target), registry=Broken()) as channel:
        assert call(channel.unary_unary(ECHO), style, ask()) == b"done"
    assert "no guard for /test.Echo/Do" in caplog.text


class _Around(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, details: str, request: bytes) -> Any:
        return continuation(details, request)


class _Raising(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, details: str, request: bytes) -> None:
        raise ValueError("an interceptor's own fault")


@STYLES
@pytest.mark.parametrize("code", ["OK", "NOT_FOUND", "INTERNAL"])
@pytest.mark.parametrize("order", ["inside", "outside"])
def test_other_interceptors_go_inside_and_outside(
    server: EchoServer, registry: WatchedRegistry, style: str, code: str, order: Any
) -> None:
    bare = grpc.insecure_channel(server.target)
    if order == "inside":
        channel = guard(grpc.intercept_channel(bare, _Around()), registry=registry)
    else:
        channel = grpc.intercept_channel(guard(bare, registry=registry), _Around())
    with channel:
        result = seen(channel.unary_unary(ECHO), style, ask(code=code))
        assert result == b"done" if code == "OK" else result[1].name == code
        breaker = registry.get(ECHO)
        expected = DEFAULT_OUTCOMES[grpc.StatusCode[code]]
        wait_until(lambda: breaker.outcomes == [expected], "the call's outcome")


@STYLES
def test_an_inner_interceptor_that_raises_says_nothing_about_the_dependency(
    server: EchoServer, registry: WatchedRegistry, style: str
) -> None:
    inner = grpc.intercept_channel(grpc.insecure_channel(server.target), _Raising())
    with guard(inner, registry=registry) as channel:
        result = seen(channel.unary_unary(ECHO), style, ask())
    assert result == ("ValueError", "an interceptor's own fault")
    assert registry.get(ECHO).outcomes == [IGNORED]


@STYLES
def test_an_inner_guards_rejection_says_nothing_about_the_dependency(
    server: EchoServer, registry: WatchedRegistry, style: str
) -> None:
    registry.get("inner" + ECHO).open()
    inner = guard(grpc.insecure_channel(server.target), dependency="inner", registry=registry)
    with (
        guard(inner, dependency="outer", registry=registry) as channel,
        pytest.raises(CircuitOpenError),
    ):
        call(channel.unary_unary(ECHO), style, ask())
    assert registry.get("outer" + ECHO).outcomes == [IGNORED]


@STYLES
def test_a_failed_call_is_noted_in_the_operation_that_made_it(
    guarded: grpc.Channel, style: str
) -> None:
    with operation("op-1") as work:
        seen(guarded.unary_unary(ECHO), style, ask(code="INTERNAL"))
        seen(guarded.unary_unary(ECHO), style, ask(code="NOT_FOUND"))
    wait_until(lambda: work.failed == [ECHO], "the note")


def test_a_rejected_call_is_not_noted_in_the_operation(
    guarded: grpc.Channel, breaker: WatchedBreaker
) -> None:
    breaker.open()
    with operation("op-1") as work:
        seen(guarded.unary_unary(ECHO), "call", ask())
    assert work.failed == []
