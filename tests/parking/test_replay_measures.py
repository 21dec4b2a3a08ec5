"""What the durations of replays are compared with."""

from __future__ import annotations

import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.operation import TimedCall
from fusewire.parking._replay_measures import HandlerTimes, ReplayMeasures
from fusewire.testing import FakeClock

CHARGE, REFUND = "/p.P/Charge", "/p.P/Refund"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def registry(clock: FakeClock) -> BreakerRegistry:
    registry = BreakerRegistry(clock=clock)
    registry.measure_durations()
    return registry


@pytest.fixture
def handler(clock: FakeClock) -> HandlerTimes:
    return HandlerTimes(clock)


@pytest.fixture
def measures(registry: BreakerRegistry, handler: HandlerTimes) -> ReplayMeasures:
    return ReplayMeasures("payments", registry, handler, enough=20)


def call(registry: BreakerRegistry, name: str, method: str, seconds: float) -> None:
    durations = registry.get(name).durations
    assert durations is not None
    for _ in range(20):
        durations.record(seconds, method=method)


def test_the_calls_of_a_replay_are_summed_each_with_its_own_reference(
    measures: ReplayMeasures, registry: BreakerRegistry
) -> None:
    call(registry, "payments", CHARGE, 0.01)
    call(registry, "payments", REFUND, 0.1)
    timed = [TimedCall("payments", CHARGE, 0.02), TimedCall("payments", REFUND, 0.03)]
    measured = measures.measure(timed, 9.0)
    assert measured.seconds == pytest.approx(0.05)
    assert measured.reference == pytest.approx(1.25 * 0.11, rel=0.16)


def test_calls_to_other_dependencies_count_only_where_there_is_none_to_its_own(
    measures: ReplayMeasures, registry: BreakerRegistry
) -> None:
    call(registry, "payments", CHARGE, 0.01)
    call(registry, "stock", "", 1.0)
    own, other = TimedCall("payments", CHARGE, 0.02), TimedCall("stock", "", 2.0)
    assert measures.measure([own, other], 9.0).seconds == pytest.approx(0.02)
    assert measures.measure([other], 9.0).seconds == pytest.approx(2.0)


def test_a_call_without_a_reference_is_left_out_beside_one_that_has_one(
    measures: ReplayMeasures, registry: BreakerRegistry
) -> None:
    call(registry, "payments", CHARGE, 0.01)
    timed = [TimedCall("payments", CHARGE, 0.02), TimedCall("payments", REFUND, 5.0)]
    assert measures.measure(timed, 9.0).seconds == pytest.approx(0.02)
    alone = measures.measure([TimedCall("payments", REFUND, 5.0)], 9.0)
    assert (alone.seconds, alone.reference) == (5.0, None)


def test_a_method_that_was_never_called_before_is_compared_with_its_own_first_replays(
    measures: ReplayMeasures, registry: BreakerRegistry
) -> None:
    call(registry, "payments", CHARGE, 0.01)
    refund, charge = TimedCall("payments", REFUND, 0.5), TimedCall("payments", CHARGE, 0.01)
    for _ in range(20):
        assert measures.measure([refund], 9.0).reference is None
        assert measures.measure([charge], 9.0).reference == pytest.approx(0.0125, rel=0.16)
    measured = measures.measure([refund], 9.0)
    assert (measured.seconds, measured.reference) == (0.5, pytest.approx(1.25 * 0.5))
    both = measures.measure([refund, charge], 9.0)
    assert both.seconds == pytest.approx(0.51)
    measures.forget()
    assert measures.measure([refund], 9.0).reference is None


def test_what_live_calls_take_beside_a_replay_is_no_reference_for_a_new_method(
    measures: ReplayMeasures, registry: BreakerRegistry
) -> None:
    call(registry, "payments", CHARGE, 0.01)
    measures.measure([TimedCall("payments", REFUND, 0.5)], 9.0)
    call(registry, "payments", REFUND, 10.0)
    for _ in range(20):
        measured = measures.measure([TimedCall("payments", REFUND, 0.5)], 9.0)
    assert measured.reference == pytest.approx(1.25 * 0.5)


def test_a_handler_without_measured_calls_is_not_compared_with_live_calls(
    measures: ReplayMeasures, registry: BreakerRegistry
) -> None:
    call(registry, "payments", CHARGE, 0.01)
    for _ in range(20):
        assert measures.measure([], 0.5).reference is None
    assert measures.measure([], 0.5).reference == pytest.approx(1.25 * 0.5)


def test_a_handler_without_measured_calls_is_measured_itself_against_first_deliveries(
    measures: ReplayMeasures, handler: HandlerTimes
) -> None:
    assert measures.baseline is None
    assert measures.measure([], 0.3).reference is None
    measures.forget()
    for _ in range(20):
        handler.of("payments").record(0.2)
    measured = measures.measure([], 0.3)
    assert measured.seconds == 0.3
    assert measured.reference == pytest.approx(0.25, rel=0.16)
    assert measures.baseline is not None
    assert measures.baseline.reference == measured.reference


def test_what_was_a_reference_once_stays_until_the_lane_is_empty(
    measures: ReplayMeasures, registry: BreakerRegistry
) -> None:
    call(registry, "payments", "", 0.01)
    before = measures.baseline
    call(registry, "payments", "", 10.0)
    call(registry, "payments", "", 10.0)
    assert measures.baseline == before
    measures.forget()
    after = measures.baseline
    assert after is not None
    assert before is not None
    assert after.reference > 100 * before.reference


def test_what_a_handler_takes_in_an_outage_is_no_reference(
    measures: ReplayMeasures, handler: HandlerTimes, clock: FakeClock
) -> None:
    for _ in range(20):
        handler.of("payments").record(0.2)
    clock.advance(100)
    measures.begin_outage()
    for _ in range(60):
        handler.of("payments").record(5.0)
    measures.end_outage()
    assert measures.baseline is not None
    assert measures.baseline.typical == pytest.approx(0.2, rel=0.16)


def test_the_share_of_slow_live_calls_is_that_of_the_dependency_or_of_the_handler(
    measures: ReplayMeasures, registry: BreakerRegistry, handler: HandlerTimes
) -> None:
    assert measures.live_slow() is None
    for seconds in [0.01] * 30 + [1.0] * 10:
        handler.of("payments").record(seconds)
    assert measures.live_slow() == pytest.approx(0.25)
    call(registry, "payments", "", 0.01)
    durations = registry.get("payments").durations
    assert durations is not None
    for _ in range(20):
        durations.record(1.0)
    assert (measures.live_slow() or 0.0) > 0.3


def test_a_breaker_that_is_not_there_yet_is_not_made_by_a_look(
    measures: ReplayMeasures, registry: BreakerRegistry
) -> None:
    assert measures.baseline is None
    assert "payments" not in registry
