"""One thread asks for each service's health, as long as a circuit of the service is open."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import TYPE_CHECKING

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, CircuitState, Event, StateChanged
from fusewire.interceptors import HealthProbe, guard
from tests.support.grpc_health import DOWN, NOT_SERVING, SERVING, Health, break_down
from tests.support.grpc_server import ECHO, EchoServer, ask, wait_until

if TYPE_CHECKING:
    from tests.support.grpc_guard import Clock

# Circuits that open again, or go, while a thread that asks is ending or beginning.


def _threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("fusewire-health")]


def test_a_circuit_that_opens_again_as_soon_as_it_is_half_open_is_asked_for_again(
    channel: grpc.Channel, health: Health, breakers: BreakerRegistry, clock: Clock
) -> None:
    breaker = breakers.get(ECHO)
    reopened = threading.Event()

    def fail_a_probe(event: Event) -> None:
        if isinstance(event, StateChanged) and event.new is CircuitState.HALF_OPEN:
            health.answer = NOT_SERVING
            breaker.acquire().failure()
            reopened.set()

    channel.unary_unary(ECHO)(ask())
    health.answer = NOT_SERVING
    break_down(channel)
    health.wait(2)
    breaker.add_listener(fail_a_probe)
    health.answer = SERVING
    assert reopened.wait(20)
    for _ in range(5):
        health.wait(3)
        assert breaker.state == "open"
        clock.pass_time(29.9)


def test_a_server_that_does_not_know_is_asked_once_each_time_the_circuit_opens(
    channel: grpc.Channel, health: Health, breakers: BreakerRegistry, clock: Clock
) -> None:
    health.answer = grpc.StatusCode.UNIMPLEMENTED
    for times in (1, 2):
        break_down(channel)
        wait_until(lambda times=times: len(health.asked) == times, "a health check")
        wait_until(lambda: not _threads(), "the end of the thread")
        assert len(health.asked) == times
        clock.pass_time(30)


def test_closing_waits_for_a_thread_that_is_just_beginning(
    channel: grpc.Channel, probe: HealthProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins, goes_on = threading.Event(), threading.Event()
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        if thread.name.startswith("fusewire-health"):
            begins.set()
            assert goes_on.wait(20)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    with futures.ThreadPoolExecutor(2) as pool:
        broken = pool.submit(break_down, channel)
        assert begins.wait(20)
        closed = pool.submit(probe.close)
        try:
            with pytest.raises(TimeoutError):
                closed.result(0.1)
        finally:
            goes_on.set()
        closed.result(20)
        broken.result(20)
    assert not _threads()


def test_a_thread_that_cannot_be_started_is_tried_again_when_the_circuit_opens_again(
    channel: grpc.Channel,
    health: Health,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start = threading.Thread.start
    failures = [RuntimeError("can't start new thread")]

    def start_or_fail(thread: threading.Thread) -> None:
        if failures and thread.name.startswith("fusewire-health"):
            raise failures.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    health.answer = NOT_SERVING
    break_down(channel)
    assert failures == []
    assert health.asked == []
    assert "no health checks for circuit '/test.Echo/Do' this time" in caplog.text
    clock.pass_time(30)
    break_down(channel)
    health.wait(2)


def test_a_breaker_that_the_registry_has_dropped_is_not_asked_for(
    channel: grpc.Channel, health: Health, breakers: BreakerRegistry
) -> None:
    channel.unary_unary(ECHO)(ask())
    dropped = breakers.get(ECHO)
    dropped.acquire().failure()
    health.wait(1)
    breakers.remove(ECHO)
    channel.unary_unary(ECHO)(ask())
    wait_until(lambda: not _threads(), "the end of the thread")
    dropped.reset()
    asked = len(health.asked)
    dropped.acquire().failure()
    assert not _threads()
    assert len(health.asked) == asked
    health.answer = NOT_SERVING
    break_down(channel)
    health.wait(2)
    assert breakers.get(ECHO).state == "open"


# Many circuits of one service.


def _break_all(channel: grpc.Channel, methods: list[str]) -> None:
    for method in methods:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(method)(DOWN)


def test_one_question_is_asked_for_all_the_methods_of_a_service(
    channel: grpc.Channel, health: Health, breakers: BreakerRegistry
) -> None:
    methods = [f"/test.Echo/Do{number}" for number in range(40)]
    health.answer = NOT_SERVING
    _break_all(channel, methods)
    health.wait(3)
    assert len(_threads()) == 1
    assert set(health.asked) == {b"\x0a\x09test.Echo"}
    health.answer = SERVING
    for method in methods:
        breaker = breakers.get(method)
        wait_until(lambda breaker=breaker: breaker.state == "half_open", "the end of the open time")
    wait_until(lambda: not _threads(), "the end of the thread")


def test_each_service_has_a_question_of_its_own(channel: grpc.Channel, health: Health) -> None:
    health.answer = NOT_SERVING
    _break_all(channel, ["/a.A/One", "/a.A/Two", "/b.B/One"])
    wait_until(lambda: {b"\x0a\x03a.A", b"\x0a\x03b.B"} <= set(health.asked), "both questions")
    assert len(_threads()) == 2


def test_a_circuit_that_opens_while_its_service_is_known_to_be_ill_is_held_open_at_once(
    server: EchoServer,
    health_channel: grpc.Channel,
    health: Health,
    breakers: BreakerRegistry,
    clock: Clock,
) -> None:
    health.answer = NOT_SERVING
    rare = HealthProbe(health_channel, interval=1000.0)  # a second question does not come
    with rare, guard(server.connect(), registry=breakers, health=rare) as channel:
        first, second = breakers.get("/test.Echo/One"), breakers.get("/test.Echo/Two")
        _break_all(channel, ["/test.Echo/One"])
        wait_until(lambda: first.look().retry_after > 1000, "the answer")
        _break_all(channel, ["/test.Echo/Two"])
        assert second.look().retry_after > 1000
        assert len(health.asked) == 1


def test_a_circuit_that_closes_is_asked_for_no_more_while_the_others_are(
    channel: grpc.Channel, health: Health, breakers: BreakerRegistry
) -> None:
    health.answer = NOT_SERVING
    _break_all(channel, ["/test.Echo/One", "/test.Echo/Two"])
    health.wait(2)
    breakers.get("/test.Echo/One").reset()
    health.wait(3)
    health.answer = SERVING
    second = breakers.get("/test.Echo/Two")
    wait_until(lambda: second.state == "half_open", "the end of the open time")
    assert breakers.get("/test.Echo/One").state == "closed"
