"""Calls are measured where they settle, by method, and those of replays are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, Durations
from fusewire.interceptors import aio_interceptors, guard
from fusewire.operation import Operation, TimedCall, operation
from tests.support.grpc_calls import until
from tests.support.grpc_server import ECHO, ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from tests.support.grpc_server import EchoServer

UNARY = [way for way in SYNC_WAYS if not way.streams]
STREAMS = [way for way in SYNC_WAYS if way.streams]
AIO_UNARY = [way for way in AIO_WAYS if not way.streams]
AIO_STREAMS = [way for way in AIO_WAYS if way.streams]

HANGING = BreakerSettings(
    open_on_hanging=True, slow_call_duration=5.0, slow_call_rate_threshold=0.9, window_calls=10
)
"""With them no call takes the fast path."""


class Clock:
    """Each look at it takes a millisecond."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def measuring() -> BreakerRegistry:
    registry = BreakerRegistry()
    registry.measure_durations()
    return registry


def durations_of(registry: BreakerRegistry, way: Way) -> Durations:
    durations = registry.get(way.path).durations
    assert durations is not None
    return durations


def calls(durations: Durations, method: str = "") -> tuple[int, int]:
    return durations.histogram(method).calls, durations.histogram(method, failed=True).calls


def check(way: Way, registry: BreakerRegistry, work: Operation, *, live: bool) -> None:
    durations = durations_of(registry, way)
    assert durations.methods() == (way.path,)
    assert calls(durations) == calls(durations, way.path) == (1, 0)
    assert (durations.baseline(way.path) is not None) is live
    [(breaker, method, seconds)] = work.timed
    assert (breaker, method) == (way.path, way.path)
    assert seconds == durations.histogram().seconds >= 0.02


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("way", UNARY, ids=str)
def test_a_sync_call_with_one_response_is_measured_once(
    way: Way, *, replay: bool, server: EchoServer, measuring: BreakerRegistry
) -> None:
    with guard(grpc.insecure_channel(server.target), registry=measuring) as channel:
        with operation("o-1", replay=replay) as work:
            finish(way, channel, ask(delay=0.02))
        wait_until(lambda: work.timed, "the settlement")
    check(way, measuring, work, live=not replay)


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("way", AIO_UNARY, ids=str)
async def test_an_asyncio_call_with_one_response_is_measured_once(
    way: Way, *, replay: bool, server: EchoServer, measuring: BreakerRegistry
) -> None:
    interceptors = aio_interceptors(registry=measuring)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        with operation("o-1", replay=replay) as work:
            await aio_finish(way, channel, ask(delay=0.02))
        await until(lambda: work.timed, "the settlement")
    check(way, measuring, work, live=not replay)


@pytest.mark.parametrize("way", AIO_UNARY, ids=str)
async def test_an_asyncio_call_outside_of_an_operation_is_measured_by_its_method(
    way: Way, server: EchoServer, measuring: BreakerRegistry
) -> None:
    interceptors = aio_interceptors(registry=measuring)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        await aio_finish(way, channel, ask(delay=0.02))
        await until(lambda: durations_of(measuring, way).methods(), "the settlement")
    durations = durations_of(measuring, way)
    assert calls(durations) == calls(durations, way.path) == (1, 0)
    assert durations.baseline(way.path) is not None


@pytest.mark.parametrize("way", STREAMS, ids=str)
def test_a_stream_whose_reader_sets_the_pace_is_not_measured(
    way: Way, server: EchoServer, measuring: BreakerRegistry
) -> None:
    with guard(grpc.insecure_channel(server.target), registry=measuring) as channel:
        finish(way, channel, ask())
    breaker = measuring.get(way.path)
    wait_until(lambda: breaker.snapshot().counters.succeeded, "the settlement")
    assert calls(durations_of(measuring, way)) == (0, 0)


@pytest.mark.parametrize("streams", ["first_message", "total_time"])
@pytest.mark.parametrize("way", AIO_STREAMS, ids=str)
async def test_a_stream_is_measured_if_its_time_is_the_dependencys(
    way: Way, streams: Any, server: EchoServer, measuring: BreakerRegistry
) -> None:
    interceptors = aio_interceptors(registry=measuring, streams=streams)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        await aio_finish(way, channel, ask())
    durations = durations_of(measuring, way)
    await until(lambda: calls(durations) == (1, 0), "the settlement")


@pytest.mark.parametrize(
    ("code", "measured"),
    [("NOT_FOUND", (1, 0)), ("UNAVAILABLE", (0, 1)), ("RESOURCE_EXHAUSTED", (0, 0))],
)
def test_the_status_says_how_a_call_is_measured(
    code: str, measured: tuple[int, int], server: EchoServer, measuring: BreakerRegistry
) -> None:
    way = UNARY[0]
    channel = guard(grpc.insecure_channel(server.target), registry=measuring)
    with channel, operation("o-1") as work:
        finish(way, channel, ask(code=code))
    assert calls(durations_of(measuring, way), way.path) == measured
    assert len(work.timed) == measured[0]


def test_methods_of_one_breaker_are_told_apart(
    server: EchoServer, measuring: BreakerRegistry
) -> None:
    channel = guard(grpc.insecure_channel(server.target), registry=measuring, breaker_per="service")
    with channel:
        for way in (UNARY[0], UNARY[3]):
            finish(way, channel, ask())
    service = ECHO.rpartition("/")[0]
    durations = measuring.get(service).durations
    assert durations is not None
    assert durations.methods() == tuple(sorted((UNARY[0].path, UNARY[3].path)))


def test_a_channel_that_is_guarded_twice_measures_once(
    server: EchoServer, measuring: BreakerRegistry
) -> None:
    inner = guard(grpc.insecure_channel(server.target), registry=measuring)
    with guard(inner, registry=measuring) as channel, operation("o-1") as work:
        finish(UNARY[0], channel, ask())
    assert len(work.timed) == 1
    assert calls(durations_of(measuring, UNARY[0])) == (1, 0)


def test_calls_that_take_the_lock_are_measured_by_the_breakers_clock(server: EchoServer) -> None:
    registry = BreakerRegistry(HANGING, clock=Clock())
    registry.measure_durations()
    channel = guard(grpc.insecure_channel(server.target), registry=registry)
    with channel, operation("o-1") as work:
        finish(UNARY[0], channel, ask(delay=0.05))
    [call] = work.timed
    assert call.seconds < 0.02


def test_without_measuring_there_are_no_durations(server: EchoServer) -> None:
    registry = BreakerRegistry()
    channel = guard(grpc.insecure_channel(server.target), registry=registry)
    with channel, operation("o-1") as work:
        finish(UNARY[0], channel, ask())
        assert work.timed == ()
        registry.measure_durations()
        finish(UNARY[0], channel, ask())
    assert [TimedCall(*each).method for each in work.timed] == [ECHO]
