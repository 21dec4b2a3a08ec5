"""Health checks while a circuit is open: they keep it open, and end its open time."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CircuitState,
    Event,
    StateChanged,
)
from fusewire.errors import SettingsError
from fusewire.interceptors import HealthProbe, aio_interceptors, guard
from tests.support.grpc_guard import Clock
from tests.support.grpc_server import ECHO, EchoServer, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
HANGING = b"hanging"  # a server that says nothing; its channel is READY all the same
DOWN = ask(code="UNAVAILABLE")


class Health(grpc.GenericRpcHandler):
    """A health service whose answers a test sets."""

    def __init__(self) -> None:
        self.answer: bytes | grpc.StatusCode = SERVING
        self.asked: list[bytes] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        assert handler_call_details.method == "/grpc.health.v1.Health/Check"
        return grpc.unary_unary_rpc_method_handler(self._check)

    def _check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        answer = self.answer
        self.asked.append(request)
        if answer is HANGING:
            left = threading.Event()
            context.add_callback(left.set)
            left.wait(20)
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "")
        return bytes(answer)

    def wait(self, times: int) -> None:
        """Wait until it has been asked so many times more."""
        end = len(self.asked) + times
        wait_until(lambda: len(self.asked) >= end, "a health check")


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def health_channel(health: Health) -> Iterator[grpc.Channel]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((health,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None).wait()


@pytest.fixture
def probe(health_channel: grpc.Channel) -> Iterator[HealthProbe]:
    with HealthProbe(health_channel, interval=0.01) as probe:
        yield probe


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> BreakerRegistry:
    settings = BreakerSettings(failure_threshold=1, recovery_timeout=30.0, half_open_max_calls=1)
    return BreakerRegistry(settings, clock=clock)


@pytest.fixture
def channel(
    server: EchoServer, probe: HealthProbe, breakers: BreakerRegistry
) -> Iterator[grpc.Channel]:
    with guard(grpc.insecure_channel(server.target), registry=breakers, health=probe) as channel:
        yield channel


def break_down(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError):
        channel.unary_unary(ECHO)(DOWN)


def test_a_circuit_is_half_open_as_soon_as_its_service_is_well_again(
    channel: grpc.Channel, health: Health, breakers: BreakerRegistry
) -> None:
    health.answer = NOT_SERVING
    break_down(channel)
    health.wait(3)
    breaker = breakers.get(ECHO)
    assert breaker.state == "open"
    health.answer = SERVING
    wait_until(lambda: breaker.state == "half_open", "the end of the open time")
    assert channel.unary_unary(ECHO)(ask()) == b"done"
    assert breaker.state == "closed"


def test_a_listener_that_the_probe_itself_calls_may_close_it(
    channel: grpc.Channel, health: Health, probe: HealthProbe, breakers: BreakerRegistry
) -> None:
    closed: list[str] = []

    def close(event: StateChanged) -> None:
        if event.new == "half_open":
            probe.close()
            closed.append(threading.current_thread().name)

    health.answer = NOT_SERVING
    break_down(channel)
    health.wait(2)
    breakers.get(ECHO).add_listener(close, StateChanged)
    health.answer = SERVING
    wait_until(lambda: closed, "its end")
    assert closed[0].startswith("fusewire-health")


def test_the_service_is_asked_for_by_its_name(channel: grpc.Channel, health: Health) -> None:
    break_down(channel)
    health.wait(1)
    assert health.asked[0] == b"\x0a\x09test.Echo"


@pytest.mark.parametrize("answer", [NOT_SERVING, b"", grpc.StatusCode.UNAVAILABLE])
def test_a_circuit_stays_open_past_its_time_while_the_service_is_ill(
    channel: grpc.Channel, health: Health, breakers: BreakerRegistry, clock: Clock, answer: Any
) -> None:
    health.answer = answer
    break_down(channel)
    breaker = breakers.get(ECHO)
    health.wait(2)
    for _ in range(5):
        clock.pass_time(29.9)
        health.wait(3)
        assert breaker.state == "open"


def test_a_server_that_hangs_does_not_leave_its_last_answer_standing(
    server: EchoServer,
    health_channel: grpc.Channel,
    health: Health,
    breakers: BreakerRegistry,
    clock: Clock,
) -> None:
    with (
        HealthProbe(health_channel, interval=0.01, timeout=0.05) as probe,
        guard(grpc.insecure_channel(server.target), registry=breakers, health=probe) as channel,
    ):
        break_down(channel)
        health.wait(2)
        health.answer = HANGING
        breaker = breakers.get(ECHO)
        health.wait(3)
        for _ in range(5):
            clock.pass_time(29.9)
            health.wait(3)
            assert breaker.state == "open"
        health.answer = SERVING
        wait_until(lambda: breaker.state == "half_open", "the end of the open time")


@pytest.mark.parametrize(
    "answer", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND, SERVING]
)
def test_without_news_the_recovery_timeout_decides(
    channel: grpc.Channel, health: Health, breakers: BreakerRegistry, clock: Clock, answer: Any
) -> None:
    health.answer = answer
    break_down(channel)
    breaker = breakers.get(ECHO)
    health.wait(1)
    assert breaker.state == "open"
    clock.pass_time(30)
    assert breaker.state == "half_open"


def test_a_circuit_is_not_kept_open_for_good_by_a_probe_that_is_closed(
    channel: grpc.Channel,
    health: Health,
    breakers: BreakerRegistry,
    clock: Clock,
    probe: HealthProbe,
) -> None:
    health.answer = NOT_SERVING
    break_down(channel)
    health.wait(2)
    probe.close()
    clock.pass_time(30)
    assert breakers.get(ECHO).state == "half_open"
    assert not [one for one in threading.enumerate() if one.name.startswith("fusewire-health")]


def test_the_figures_of_a_circuit_are_kept(
    channel: grpc.Channel, health: Health, breakers: BreakerRegistry
) -> None:
    health.answer = NOT_SERVING
    break_down(channel)
    health.wait(2)
    health.answer = SERVING
    breaker = breakers.get(ECHO)
    wait_until(lambda: breaker.state == "half_open", "the end of the open time")
    counters = breaker.snapshot().counters
    assert (counters.failed, counters.opened) == (1, 1)


def test_a_circuit_opened_by_hand_is_left_alone(
    channel: grpc.Channel, health: Health, breakers: BreakerRegistry
) -> None:
    channel.unary_unary(ECHO)(ask())
    breakers.get(ECHO).force_open()
    assert health.asked == []
    assert breakers.get(ECHO).state == "forced_open"


async def test_it_serves_asyncio_channels_too(
    server: EchoServer, probe: HealthProbe, health: Health, breakers: BreakerRegistry
) -> None:
    health.answer = NOT_SERVING
    interceptors = aio_interceptors(registry=breakers, health=probe)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        with pytest.raises(grpc.RpcError):
            await channel.unary_unary(ECHO)(DOWN)
        health.wait(2)
        health.answer = SERVING
        wait_until(lambda: breakers.get(ECHO).state == "half_open", "the end of the open time")
        assert await channel.unary_unary(ECHO)(ask()) == b"done"
    assert breakers.get(ECHO).state == "closed"


def test_a_server_that_is_killed_and_comes_back_is_found_by_its_health(
    mortal: EchoServer, breakers: BreakerRegistry
) -> None:
    options = [("grpc.max_reconnect_backoff_ms", 100)]
    with (
        grpc.insecure_channel(mortal.target, options=options) as bare,
        HealthProbe(bare, interval=0.02) as probe,
        guard(
            grpc.insecure_channel(mortal.target, options=options), registry=breakers, health=probe
        ) as channel,
    ):
        channel.unary_unary(ECHO)(ask())
        mortal.kill()
        break_down(channel)
        breaker = breakers.get(ECHO)
        wait_until(lambda: breaker.snapshot().counters.opened == 1, "the circuit's opening")
        mortal.start()
        wait_until(lambda: breaker.state == "half_open", "the end of the open time")
        assert channel.unary_unary(ECHO)(ask(), timeout=10) == b"done"
        assert breaker.state == "closed"


@pytest.mark.parametrize(
    "wrong", [{"interval": 0}, {"interval": True}, {"timeout": float("inf")}, {"timeout": "1"}]
)
def test_settings_that_cannot_be_right_are_refused(
    health_channel: grpc.Channel, wrong: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match="seconds above 0"):
        HealthProbe(health_channel, **wrong)


async def test_an_asyncio_channel_is_refused() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(SettingsError, match=r"must be a sync grpc\.Channel"):
            HealthProbe(channel)


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
