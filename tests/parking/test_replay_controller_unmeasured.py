"""What the controller does about replays that nothing is known of to compare them with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.testing import FakeClock
from tests.support.controllers import GOOD, begun, fail, gap, new, succeed

if TYPE_CHECKING:
    from fusewire.parking._replay_controller import ReplayController


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(0)


@pytest.fixture
def controller(clock: FakeClock) -> ReplayController:
    """One replica, at the beginning of a recovery."""
    return begun(clock, 1)


def test_without_a_baseline_the_first_twenty_replays_give_the_reference(clock: FakeClock) -> None:
    controller = new(clock)
    controller.begin(1, None, turn=0.0)
    assert controller.figures().reference is None
    for number in range(20):
        assert controller.figures().reference is None
        assert controller.window == 1.0  # it does not look for the limit yet
        succeed(controller, seconds=0.03 if number % 2 else 0.05)
    assert controller.figures().reference == pytest.approx(1.25 * 0.04)
    assert controller.figures().slow_share == 0
    succeed(controller, 5, seconds=0.04)
    assert controller.window > 1


def test_without_a_baseline_no_more_than_two_replays_of_the_fleet_are_in_flight(
    clock: FakeClock,
) -> None:
    controller = new(clock)
    controller.begin(100, None, turn=0.0)
    assert controller.window == 2 / 8
    clock.advance(60.0)  # there are four times as many now
    succeed(controller)
    assert controller.window == pytest.approx(2 / 32)


def test_without_a_baseline_the_first_replay_gives_the_round_trip(clock: FakeClock) -> None:
    controller = new(clock)
    controller.begin(1, None, turn=0.0)
    succeed(controller, seconds=4.0)
    assert gap(controller, clock) == pytest.approx(4.0)


def test_without_a_baseline_a_window_that_probes_have_cut_widens_with_each_replay(
    clock: FakeClock,
) -> None:
    controller = new(clock)
    controller.begin(1, None, turn=0.0)
    for _ in range(3):
        fail(controller)
        controller.opened()
        clock.advance(1.0)
    assert controller.window == 0.05  # the floor: a call in twenty round trips
    succeed(controller, 5)
    assert controller.window == 1.0
    assert controller.figures().reference is None


def test_what_is_known_keeps_a_cut_window_where_another_replay_is_unknown(
    controller: ReplayController, clock: FakeClock
) -> None:
    fail(controller)
    cut = controller.window
    clock.advance(60.0)
    controller.on_start()
    controller.on_unknown(GOOD)
    assert controller.window == cut


def test_without_a_baseline_the_window_of_many_replicas_stays_as_it_was_cut(
    clock: FakeClock,
) -> None:
    controller = new(clock)
    controller.begin(100, None, turn=0.0)
    fail(controller)
    cut = controller.window
    clock.advance(60.0)
    succeed(controller, 5)
    assert controller.window <= cut


def test_a_replay_that_nothing_is_known_of_moves_the_round_trip_alone(
    controller: ReplayController, clock: FakeClock
) -> None:
    succeed(controller, 10)
    before = controller.figures()
    for _ in range(100):
        controller.on_start()
        controller.on_unknown(7.0)
    assert controller.figures() == before
    assert gap(controller, clock) == pytest.approx(7.0 / controller.window, rel=0.01)


def test_a_replay_with_a_reference_of_its_own_needs_no_baseline(clock: FakeClock) -> None:
    controller = new(clock)
    controller.begin(1, None, turn=0.0)
    controller.on_start()
    controller.on_success(GOOD, reference=0.02)
    assert controller.window > 1
