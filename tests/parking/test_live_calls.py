"""A replica that began in an outage learns from messages what calls took before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import Baseline, BreakerRegistry, BreakerSettings
from fusewire.operation import TimedCall, current_operation
from fusewire.parking._live_calls import LiveCalls, read_live_calls
from fusewire.parking._replay_measures import HandlerTimes, ReplayMeasures
from fusewire.testing import FakeClock
from tests.support.controllers import new, succeed
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

CHARGE, REFUND = "/p.P/Charge", "/p.P/Refund"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def registry(clock: FakeClock) -> BreakerRegistry:
    registry = BreakerRegistry(BreakerSettings(recovery_timeout=0.3), clock=clock)
    registry.measure_durations()
    return registry


def call(registry: BreakerRegistry, method: str, seconds: float, name: str = "payments") -> None:
    durations = registry.get(name).durations
    assert durations is not None
    for _ in range(20):
        durations.record(seconds, method=method)


def told(text: str) -> ReplayMeasures:
    """Return the measures of a replica that has heard `text`, and knows nothing else."""
    empty = BreakerRegistry()
    measures = ReplayMeasures("payments", empty, HandlerTimes(FakeClock()), enough=20)
    measures.hear(text)
    return measures


def test_what_is_told_is_what_was_known(registry: BreakerRegistry) -> None:
    call(registry, CHARGE, 0.01)
    call(registry, REFUND, 0.3)
    read = read_live_calls(LiveCalls(registry).of("payments"))
    assert list(read) == [CHARGE, REFUND]
    durations = registry.get("payments").durations
    assert durations is not None
    for method, baseline in read.items():
        known = durations.baseline(method)
        assert known is not None
        assert baseline.reference == pytest.approx(known.reference, abs=1e-6)
        assert baseline.typical == pytest.approx(known.typical, abs=1e-6)


def test_nothing_is_told_of_what_is_not_known(registry: BreakerRegistry) -> None:
    assert LiveCalls(registry).of("payments") == ""
    assert LiveCalls(registry, HandlerTimes(FakeClock())).of("payments") == ""
    registry.get("payments")
    assert LiveCalls(registry).of("payments") == ""
    assert LiveCalls(BreakerRegistry()).of("payments") == ""


def test_a_handler_that_makes_no_measured_calls_is_told_itself(registry: BreakerRegistry) -> None:
    handler = HandlerTimes(FakeClock())
    for _ in range(20):
        handler.of("").record(0.2)
    text = LiveCalls(registry, handler).of("payments")
    assert told(text).measure([], 0.3).reference == pytest.approx(0.25, rel=0.16)
    call(registry, CHARGE, 0.01)
    assert CHARGE in LiveCalls(registry, handler).of("payments")


def test_no_more_than_eight_methods_are_told(registry: BreakerRegistry) -> None:
    for number in range(9):
        call(registry, f"/p.P/M{number}", 0.01)
    text = LiveCalls(registry).of("payments")
    assert list(read_live_calls(text)) == [f"/p.P/M{number}" for number in range(8)]


def test_what_is_told_follows_what_is_known(registry: BreakerRegistry, clock: FakeClock) -> None:
    live_calls = LiveCalls(registry)
    call(registry, "", 0.01)
    before = live_calls.of("payments")
    assert live_calls.of("payments") is before  # and is written once
    clock.advance(300.0)
    for _ in range(20):
        call(registry, "", 0.1)
        clock.advance(30.0)
    assert read_live_calls(live_calls.of("payments"))[""].typical > 0.05


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "x", "1", "1:", ":2:m", "a:2:m", "-1:2:m", "2:1:m", "0:1:m", "1.5:2:m", "²:3:m"),
        "1:9999999999999:m",
        f"{'1' * 5000}:{'2' * 5000}:m",
    ],
)
def test_what_cannot_be_read_tells_nothing(text: str) -> None:
    assert read_live_calls(text) == {}


def test_a_method_may_hold_colons() -> None:
    assert list(read_live_calls("1:2:a:b 3:4:c")) == ["a:b", "c"]


def test_a_replica_that_has_heard_compares_each_call_with_its_own_method() -> None:
    measures = told("20000:30000:/p.P/Charge 200000:300000:/p.P/Refund")
    assert measures.measure([TimedCall("payments", CHARGE, 0.04)], 9.0).reference == 0.03
    assert measures.measure([TimedCall("payments", REFUND, 0.04)], 9.0).reference == 0.3
    assert measures.measure([TimedCall("stock", CHARGE, 0.04)], 9.0).reference is None
    assert measures.measure([], 9.0).reference is None
    assert measures.baseline == Baseline(0.3, 0.2, 0)
    measures.forget()
    assert measures.baseline is None
    assert measures.measure([TimedCall("payments", CHARGE, 0.04)], 9.0).reference is None


def test_a_replica_that_knows_live_calls_takes_nothing_from_others(
    registry: BreakerRegistry, clock: FakeClock
) -> None:
    call(registry, CHARGE, 0.01)
    measures = ReplayMeasures("payments", registry, HandlerTimes(clock), enough=20)
    assert measures.hear("20000:30000:/p.P/Charge") is None
    measured = measures.measure([TimedCall("payments", CHARGE, 0.04)], 9.0)
    assert measured.reference == pytest.approx(0.0125, rel=0.16)


def test_the_first_that_tells_counts() -> None:
    measures = told("20000:30000:/p.P/Charge")
    assert measures.hear("1:1:/p.P/Charge") is None
    assert measures.measure([TimedCall("payments", CHARGE, 0.04)], 9.0).reference == 0.03


def test_a_controller_that_hears_need_not_measure_replays(clock: FakeClock) -> None:
    controller = new(clock)
    controller.begin(1, None, turn=0.0)
    controller.hear(Baseline(0.03, 0.02, 0))
    assert controller.figures().reference == 0.03
    succeed(controller, 5, seconds=0.02)
    assert controller.window > 1
    controller.hear(Baseline(3.0, 2.0, 0))
    assert controller.figures().reference == 0.03


def test_a_replica_that_is_nearer_than_who_told_goes_by_what_it_measures() -> None:
    measures = told("60000:75000:/p.P/Charge")
    near, far = TimedCall("payments", CHARGE, 0.004), TimedCall("payments", CHARGE, 0.09)
    for _ in range(20):
        assert measures.measure([near], 9.0).reference == 0.075
    assert measures.measure([near], 9.0).reference == pytest.approx(0.005)
    for _ in range(20):
        assert measures.measure([far], 9.0).reference == pytest.approx(0.005)


def test_a_replica_that_measures_under_load_goes_by_what_it_was_told() -> None:
    measures = told("20000:30000:/p.P/Charge")
    for _ in range(30):
        loaded = measures.measure([TimedCall("payments", CHARGE, 0.06)], 9.0)
        assert loaded.reference == 0.03


def test_a_replica_that_is_further_away_than_who_told_replays_all_the_same(
    clock: FakeClock,
) -> None:
    controller = new(clock)
    controller.begin(1, None, turn=0.0)
    controller.hear(Baseline(0.005, 0.004, 0))
    began, replayed = clock(), 0
    while controller.window < 4:
        clock.advance(max(controller.allowed(), 1e-6))
        if controller.allowed() == 0:
            controller.on_start()
            clock.advance(0.05)
            controller.on_success(0.05, reference=0.005, live_slow=None)
            replayed += 1
        assert clock() - began < 120
    assert replayed < 100


async def test_a_message_tells_a_replica_of_which_nothing_else_is_known(bench: Bench) -> None:
    seconds = 0.04

    async def handler(message: AbstractIncomingMessage) -> None:
        raise AssertionError("its circuit is open")

    bench.registry.measure_durations()
    breaker = bench.registry.get("payments")
    assert breaker.durations is not None
    for _ in range(50):
        breaker.durations.record(seconds, method=CHARGE)
    breaker.force_open()
    await bench.send("a")
    async with bench.consumer(handler, depends_on="payments"):
        await until(lambda: bench.happened("parked") == ["a"])
    (parked,) = await bench.broker.peek(f"{bench.queue}.parked.payments", limit=1)
    known = breaker.durations.baseline(CHARGE)
    assert known is not None
    (word,) = str(parked.headers["fusewire-live-calls"]).split(" ")
    assert word == f"{round(known.typical * 1e6)}:{round(known.reference * 1e6)}:{CHARGE}"

    async def late(message: AbstractIncomingMessage) -> None:
        operation = current_operation()
        assert operation is not None
        operation.note_duration("payments", CHARGE, seconds)

    other = BreakerRegistry()
    async with bench.consumer(late, depends_on="payments", registry=other) as consumer:
        await until(lambda: bench.happened("replayed") == ["a"])
        figures = consumer.replay_figures()["payments"]["payments"]
    assert figures.reference == pytest.approx(known.reference, abs=1e-6)
    assert figures.slow_share == 0  # of one that was compared
