"""When a replica replays, and how much at most: the controller's state machine."""

from __future__ import annotations

import math

import pytest

from fusewire.parking._replay_controller import ReplayController, ReplayFailure
from fusewire.parking._replay_lane import turn_of
from fusewire.testing import FakeClock
from tests.support.controllers import (
    GOOD,
    MEASURED,
    MIDDLE,
    SLOW,
    begun,
    fail,
    gap,
    new,
    started,
    succeed,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(0)


@pytest.fixture
def controller(clock: FakeClock) -> ReplayController:
    """One replica, at the beginning of a recovery."""
    return begun(clock, 1)


def test_nothing_may_begin_before_the_first_recovery(clock: FakeClock) -> None:
    controller = new(clock)
    controller.replicas(3)
    controller.opened()
    assert controller.allowed() == controller.starts_in == math.inf
    assert not controller.taking_part
    assert (controller.window, controller.places, controller.in_flight) == (0, 1, 0)


def test_two_replays_are_in_flight_in_the_whole_fleet_at_first(clock: FakeClock) -> None:
    assert begun(clock, 1).window == 1.0  # never more than one by one replica
    assert begun(clock, 2).window == 1.0
    assert begun(clock, 4).window == 0.5
    assert begun(clock, 8).window == 0.25
    assert begun(clock, 1000).window == 0.25  # eight take part


def test_the_first_replay_is_somewhere_in_the_first_interval(clock: FakeClock) -> None:
    controller = begun(clock, 8)
    assert controller.allowed() == pytest.approx(MIDDLE * 0.02 / 0.25)


def test_a_window_below_one_call_is_paced(clock: FakeClock) -> None:
    controller = begun(clock, 8)
    assert started(controller, clock, 10.0) == pytest.approx(10.0 * 0.25 / 0.02, abs=2)


def test_a_wider_window_is_paced_too(clock: FakeClock) -> None:
    controller = begun(clock, 1)
    succeed(controller, 40)
    assert controller.places > 4
    assert gap(controller, clock) == pytest.approx(controller._round_trip / controller.window)


def test_replays_are_spaced_by_chance_so_that_replicas_do_not_move_in_step(
    clock: FakeClock,
) -> None:
    gaps, pauses = [], []
    for chance in (0.0, 0.5, 1.0):
        controller = new(clock, chance=chance)
        controller.begin(1, MEASURED, turn=0.0)
        gaps.append(gap(controller, clock))
        clock.advance(60.0)
        fail(controller)
        pauses.append(controller.allowed())
    assert gaps == pytest.approx([0.015, 0.02, 0.025])
    assert pauses == pytest.approx([0.01, 0.02, 0.03])


def test_a_replica_that_was_idle_catches_up_by_one_replay(
    controller: ReplayController, clock: FakeClock
) -> None:
    clock.advance(60.0)
    controller.on_start()
    controller.cancelled()
    assert controller.allowed() == 0
    controller.on_start()
    controller.cancelled()
    assert controller.allowed() > 0


def test_no_more_replays_are_in_flight_than_there_are_places(
    controller: ReplayController, clock: FakeClock
) -> None:
    clock.advance(60.0)
    controller.on_start()
    assert controller.places == 1
    assert controller.allowed() == math.inf
    controller.on_success(GOOD)
    assert controller.in_flight == 0
    assert controller.allowed() < math.inf


# Who takes part.


def test_few_replicas_take_part_at_first_and_twice_as_many_after_each_half_minute(
    clock: FakeClock,
) -> None:
    fleet = [begun(clock, 100, turn=(number + 0.5) / 100) for number in range(100)]

    def participants() -> int:
        return sum(controller.taking_part for controller in fleet)

    counts = [participants()]
    for _ in range(4):
        clock.advance(30.0)
        counts.append(participants())
    assert counts == [8, 16, 32, 64, 100]


def test_a_replica_says_when_its_turn_comes(clock: FakeClock) -> None:
    controller = begun(clock, 100, turn=0.32)
    assert controller.starts_in == pytest.approx(60.0)
    assert controller.allowed() > 60.0
    clock.advance(61.0)
    assert controller.starts_in == 0
    assert controller.taking_part


def test_replicas_that_join_later_begin_gently(clock: FakeClock) -> None:
    later = begun(clock, 100, turn=0.32)
    assert later.window == pytest.approx(0.1 / 32)
    assert later.figures().gain == 0.05
    joined = begun(clock, 8, first=False)
    assert joined.window == pytest.approx(0.1 / 8)
    assert joined.taking_part


def test_a_replica_that_waits_computes_its_turn_again_when_replicas_are_counted(
    clock: FakeClock,
) -> None:
    controller = begun(clock, 1000, turn=0.5)
    assert controller.starts_in == pytest.approx(30 * math.log2(500 / 8))
    controller.replicas(64)
    assert controller.starts_in == pytest.approx(60.0)
    clock.advance(20.0)
    controller.replicas(8)
    assert controller.taking_part
    assert controller.allowed() == pytest.approx(MIDDLE * 0.02 / controller.window)


def test_a_replica_that_takes_part_stays_when_others_come(clock: FakeClock) -> None:
    controller = begun(clock, 8, turn=0.9)
    window = controller.window
    controller.replicas(800)
    assert controller.taking_part
    assert controller.window == window
    assert controller.figures().replicas == 800


def test_at_least_one_replica_is_counted(clock: FakeClock) -> None:
    controller = begun(clock, 0)
    assert controller.figures().replicas == 1
    controller.replicas(0)
    assert controller.figures().replicas == 1


def test_the_turn_is_the_same_everywhere_and_another_for_each_lane_and_outage() -> None:
    assert turn_of("pod-1", "payments", "7") == 0.6870932048815915
    turns = {turn_of(r, lane, outage) for r in "ab" for lane in "cd" for outage in "ef"}
    assert len(turns) == 8
    assert turn_of("a", "bc", "d") != turn_of("ab", "c", "d")


def test_turns_are_spread_evenly_and_are_below_one() -> None:
    turns = sorted(turn_of(f"pod-{number}", "payments", "7") for number in range(1000))
    assert turns[0] >= 0
    assert turns[-1] < 1
    assert all(abs(turn - number / 1000) < 0.05 for number, turn in enumerate(turns))


def test_the_largest_hash_gives_a_turn_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Largest:
        def digest(self) -> bytes:
            return b"\xff" * 8

    monkeypatch.setattr("hashlib.blake2b", lambda *_, **__: Largest())
    assert turn_of("pod-1", "payments", "7") < 1


# Bounds, and new outages.


def test_the_window_stays_within_its_bounds(clock: FakeClock) -> None:
    controller = begun(clock, 8, most=10)
    succeed(controller, 500)
    assert (controller.window, controller.places) == (10, 10)
    succeed(controller, 2000, seconds=SLOW)
    assert (controller.window, controller.places) == (pytest.approx(0.05 / 8), 1)


def test_when_the_circuit_opens_it_goes_on_from_half_and_at_most_one_call(
    controller: ReplayController, clock: FakeClock
) -> None:
    succeed(controller, 30)
    controller.opened()
    assert controller.window == 1.0
    assert controller.figures().gain == 1.0
    narrow = begun(clock, 8)
    narrow.opened()
    assert narrow.window == 0.125


def test_a_circuit_that_opens_changes_nothing_for_a_replica_that_waits(clock: FakeClock) -> None:
    controller = begun(clock, 1000, turn=0.5)
    before = controller.figures()
    controller.opened()
    assert controller.figures() == before


def test_a_count_changes_no_window_by_the_floor_of_fewer_replicas(clock: FakeClock) -> None:
    waiting = begun(clock, 1000, turn=0.99)
    waiting.replicas(999)
    assert waiting.window < 0.05 / 8
    narrow = begun(clock, 64)
    clock.advance(90.0)
    succeed(narrow, 500, seconds=SLOW)
    assert narrow.window == pytest.approx(0.05 / 64)
    narrow.replicas(2)
    assert narrow.window == pytest.approx(0.05 / 2)


def test_a_recovery_keeps_nothing_of_the_former_one_but_what_is_in_flight(
    controller: ReplayController, clock: FakeClock
) -> None:
    succeed(controller, 30)
    fail(controller)
    controller.on_start()
    clock.advance(1.0)
    controller.begin(4, MEASURED, turn=0.0)
    figures = controller.figures()
    assert (figures.window, figures.gain, figures.slow_share) == (0.5, 1.0, 0.0)
    assert figures.in_flight == 1
    assert figures.cuts[ReplayFailure.REFUSED] == 1  # a total
    controller.on_success(GOOD)
    succeed(controller, 500)
    assert controller.window == 64


def test_figures_are_a_copy(controller: ReplayController) -> None:
    before = controller.figures()
    fail(controller)
    assert before.cuts == {ReplayFailure.REFUSED: 0, ReplayFailure.LATE: 0}
    assert before.window == 1.0


def test_the_one_that_is_left_of_many_replicas_does_not_wait_as_long_as_each_of_them(
    clock: FakeClock,
) -> None:
    controller = begun(clock, 1000, turn=0.99)
    clock.advance(controller.starts_in)
    controller.on_start()
    controller.cancelled()
    assert controller.allowed() > 100
    controller.replicas(1)
    assert controller.allowed() < 1
    controller.replicas(1000)
    assert controller.allowed() < 1


def test_a_server_that_asked_to_wait_is_not_called_earlier_by_fewer_replicas(
    clock: FakeClock,
) -> None:
    controller = begun(clock, 1000)
    clock.advance(controller.allowed())
    fail(controller, retry_after=30.0)
    controller.replicas(1)
    assert controller.allowed() == pytest.approx(30.0)


def test_no_refusal_widens_the_window_of_a_replica_whose_turn_is_still_to_come(
    clock: FakeClock,
) -> None:
    controller = begun(clock, 1)
    controller.on_start()
    controller.begin(100, None, turn=0.5, first=False)
    window = controller.window
    clock.advance(1)
    controller.on_failure(ReplayFailure.REFUSED)
    assert controller.window <= window
