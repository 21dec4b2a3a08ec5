"""Health checks while a circuit is open: they keep it open, and end its open time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, StateChanged
from fusewire.errors import SettingsError
from fusewire.interceptors import HealthProbe, aio_interceptors, guard
from tests.support.grpc_health import DOWN, HANGING, NOT_SERVING, SERVING, Health, break_down
from tests.support.grpc_server import ECHO, EchoServer, ask, wait_until

if TYPE_CHECKING:
    from tests.support.grpc_guard import Clock


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
