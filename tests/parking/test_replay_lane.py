"""Which replicas take part in the replay of a lane, and with how many messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.operation import TimedCall
from fusewire.parking._controller_settings import ControllerSettings
from fusewire.parking._recovery import Recovery, Standing
from fusewire.parking._replay_controller import ReplayController
from fusewire.parking._replay_lane import ReplayLane, turn_of
from fusewire.parking._replay_measures import HandlerTimes, ReplayMeasures
from fusewire.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = ControllerSettings(most=64)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_lane(clock: FakeClock) -> Callable[..., ReplayLane]:
    handler = HandlerTimes(clock)
    for name in ("a", "b"):
        for _ in range(20):
            handler.of(name).record(0.1)

    def make(dependency: str) -> Recovery:
        return Recovery(
            ReplayController(SETTINGS, clock=clock, rng=lambda: 0.0),
            ReplayMeasures(dependency, BreakerRegistry(), handler, enough=20),
            recovery_timeout=lambda: 30.0,
            clock=clock,
        )

    def lane(replica: str = "one", *, replicas: int = 1, shared: bool = False) -> ReplayLane:
        made = ReplayLane("lane", replica=replica, settings=SETTINGS, shared=shared, make=make)
        made.replicas = replicas
        return made

    return lane


def replica(replicas: int, *, early: bool, outage: int = 0) -> str:
    """Return the name of a replica whose turn is among the first, or is not."""
    names = map(str, range(10_000))
    return next(
        name for name in names if (turn_of(name, "lane", str(outage)) * replicas < 8) == early
    )


LONG, SHORT = 0.1, 0.01
"""Seconds of handlers before which no messages are held ahead, and before which some are."""


def succeed(recovery: Recovery, times: int, seconds: float = SHORT) -> None:
    for _ in range(times):
        recovery.succeeded(recovery.start(), (), seconds)


def grow(lane: ReplayLane, times: int, seconds: float) -> list[tuple[int, int]]:
    """Make replays one at a time; return the places and the prefetch after each."""
    recovery, prefetch, seen = lane.recovery("a"), 1, []
    for _ in range(times):
        succeed(recovery, 1, seconds)
        prefetch = lane.prefetch(prefetch, aside=0)
        seen.append((recovery.controller.places, prefetch))
    return seen


def test_at_rest_up_to_eight_replicas_all_listen(make_lane: Callable[..., ReplayLane]) -> None:
    for number in range(50):
        assert make_lane(str(number), replicas=8).takes_messages_in() == 0


def test_at_rest_only_those_of_many_listen_that_would_be_the_first(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lanes = [make_lane(str(number), replicas=1000) for number in range(1000)]
    listening = [lane for lane in lanes if lane.takes_messages_in() == 0]
    assert 1 <= len(listening) <= 20
    assert {lane.takes_messages_in() for lane in lanes} == {0.0, math.inf}
    for lane in listening:
        lane.begin("a")
        assert lane.recovery("a").controller.taking_part


def test_other_replicas_are_the_first_in_each_outage(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane(replica(1000, early=True), replicas=1000)
    lane.begin("a")
    assert lane.recovery("a").controller.taking_part
    part = []
    for _ in range(5):
        lane.begin("a")
        part.append(lane.recovery("a").controller.taking_part)
    assert False in part
    lane.end()
    lanes = [make_lane(str(number), replicas=1000) for number in range(100)]
    for each in lanes:
        each.begin("a")
        before = each.recovery("a").controller.starts_in
        each.end()
        each.begin("a")
        assert each.recovery("a").controller.starts_in != before or before == 0


def test_who_waits_for_its_turn_takes_no_message(make_lane: Callable[..., ReplayLane]) -> None:
    lane = make_lane(replica(1000, early=False), replicas=1000)
    lane.begin("a")
    assert 0 < lane.takes_messages_in() < math.inf
    assert lane.replaying
    lane.replicas = 1
    assert lane.takes_messages_in() < 10


def test_what_begins_beside_another_takes_part_because_its_messages_come_anyway(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane(replica(1000, early=True), replicas=1000, shared=True)
    lane.begin("a")
    lane.begin("b")
    assert lane.recovery("b").controller.taking_part
    window = lane.recovery("b").controller.window
    assert window < lane.recovery("a").controller.window


def test_who_takes_part_for_another_does_not_wait_for_its_turn(
    make_lane: Callable[..., ReplayLane], clock: FakeClock
) -> None:
    lane = make_lane(replica(1000, early=False), replicas=1000, shared=True)
    a, b = lane.recovery("a"), lane.recovery("b")
    lane.begin("a")
    clock.advance(1)
    lane.begin("b")
    assert not lane.join(a)
    assert not lane.join(b)
    clock.advance(a.controller.starts_in)
    assert not b.controller.taking_part
    assert lane.join(b)
    assert b.controller.taking_part
    window = b.controller.window
    assert lane.join(b)  # it does not begin again each time
    succeed(b, 1)
    assert b.controller.window > window


def test_before_long_replays_the_prefetch_is_the_smallest_power_of_two_that_holds_the_places(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane()
    assert lane.prefetch(1, aside=0) == 1
    lane.begin("a")
    seen = grow(lane, 300, LONG)
    assert all(prefetch / 2 < places <= prefetch for places, prefetch in seen)
    assert list(dict.fromkeys(prefetch for _, prefetch in seen)) == [2, 4, 8, 16, 32, 64]


def test_before_short_replays_messages_are_held_ahead_and_the_steps_are_fourfold(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane()
    assert lane.prefetch(1, aside=0) == 1
    lane.begin("a")
    seen = grow(lane, 200, SHORT)
    assert all(
        min(1.5 * places, SETTINGS.most) <= prefetch < 6 * places for places, prefetch in seen
    )
    assert list(dict.fromkeys(prefetch for _, prefetch in seen)) == [4, 16, 64]


def test_nothing_is_held_ahead_while_replays_are_paced(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane(replicas=8)
    lane.begin("a")
    recovery = lane.recovery("a")
    succeed(recovery, 1)
    assert recovery.controller.window < 1
    assert lane.prefetch(1, aside=0) == 1
    assert lane.prefetch(4, aside=0) == 1


def test_nothing_more_is_held_ahead_once_replays_take_twice_as_long(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane()
    lane.begin("a")
    recovery = lane.recovery("a")

    def succeed(times: int, seconds: float) -> None:
        for _ in range(times):
            recovery.succeeded(recovery.start(), (TimedCall("a", "", 0.01),), seconds)

    succeed(1, SHORT)
    assert recovery.holds_ahead
    succeed(30, 0.15)  # not every small change costs a subscription
    assert recovery.holds_ahead
    succeed(60, 0.25)
    assert not recovery.holds_ahead
    succeed(60, 0.15)
    assert not recovery.holds_ahead


def test_a_prefetch_that_holds_some_ahead_shrinks_when_the_window_is_far_below_it(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane()
    lane.begin("a")
    recovery = lane.recovery("a")
    succeed(recovery, 1, 0.0)
    assert (recovery.controller.places, recovery.holds_ahead) == (2, True)
    assert lane.prefetch(4, aside=0) == 4
    assert lane.prefetch(16, aside=0) == 16
    assert lane.prefetch(64, aside=0) == 4


def test_the_end_of_a_replay_says_when_another_prefetch_may_be_wanted(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane()
    lane.begin("a")
    recovery = lane.recovery("a")
    before = recovery.controller.places, recovery.holds_ahead
    for _ in range(200):
        changes = recovery.succeeded(recovery.start(), (), SHORT)
        now = recovery.controller.places, recovery.holds_ahead
        assert changes == (now != before)
        before = now
    assert not changes


def test_before_long_replays_the_prefetch_shrinks_when_it_is_four_times_too_large_and_at_rest(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane()
    lane.begin("a")  # one place
    assert lane.prefetch(2, aside=0) == 2
    assert lane.prefetch(4, aside=0) == 1
    lane.end()
    assert lane.prefetch(2, aside=0) == 1


def test_in_an_outage_what_is_in_flight_stays(make_lane: Callable[..., ReplayLane]) -> None:
    lane = make_lane()
    lane.begin("a")
    succeed(lane.recovery("a"), 100)
    lane.recovery("a").see(Standing.OPEN)
    assert lane.prefetch(64, aside=0) == 64


def test_in_a_shared_lane_those_whose_circuit_is_open_make_room_for_others_ten_at_most(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane(shared=True)
    lane.begin("a")
    lane.recovery("b").see(Standing.OPEN)
    line = lane.recovery("b").line
    for number in range(3):
        line.join(line.place(number))
    assert lane.prefetch(1, aside=0) == 4
    assert lane.prefetch(1, aside=100) == 16


def test_figures_are_there_of_each_dependency(make_lane: Callable[..., ReplayLane]) -> None:
    lane = make_lane(replicas=3, shared=True)
    assert lane.figures() == {}
    lane.begin("a")
    lane.begin("b")
    figures = lane.figures()
    assert set(figures) == {"a", "b"}
    assert figures["a"].replicas == 3


def test_of_very_many_dependencies_those_of_an_empty_lane_are_forgotten(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane(shared=True)
    for number in range(101):
        lane.begin(str(number))
    lane.end()
    assert lane.figures() == {}
    assert not lane.replaying


def test_a_lower_limit_narrows_what_is_in_flight_at_once(
    make_lane: Callable[..., ReplayLane],
) -> None:
    lane = make_lane()
    lane.begin("a")
    controller = lane.recovery("a").controller
    controller._window = 64.0
    assert lane.prefetch(64, aside=0) == 64
    lane.use(ControllerSettings(most=20))
    assert controller.places == 20
    assert lane.prefetch(64, aside=0) == 20
