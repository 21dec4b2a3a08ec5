"""What the ends of replays say to the controller: durations, refusals, missed deadlines."""

from __future__ import annotations

import pytest

from fusewire.parking._replay_controller import ReplayController, ReplayFailure
from fusewire.testing import FakeClock
from tests.support.controllers import GOOD, SLOW, begun, fail, gap, succeed


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(0)


@pytest.fixture
def controller(clock: FakeClock) -> ReplayController:
    """One replica, at the beginning of a recovery."""
    return begun(clock, 1)


# Durations.


def test_the_window_doubles_in_a_round_trip_while_all_is_well(clock: FakeClock) -> None:
    controller = begun(clock, 1, theta=0)
    succeed(controller)
    assert controller.window == pytest.approx(2.0)
    succeed(controller, 2)
    assert controller.window == pytest.approx(4.0)


def test_a_narrow_window_grows_faster_than_a_wide_one(clock: FakeClock) -> None:
    narrow, wide = (begun(clock, 8, start=start) for start in (0.5, 4.0))
    before = narrow.window, wide.window
    succeed(narrow)
    succeed(wide)
    assert narrow.window / before[0] > wide.window / before[1]


def test_a_slow_replay_makes_the_window_narrower_and_lowers_the_gain(
    controller: ReplayController,
) -> None:
    succeed(controller, 10)
    window = controller.window
    succeed(controller, seconds=SLOW)
    assert controller.window < window
    assert controller.figures().gain < 1


def test_the_gain_anneals_while_replays_are_slow_and_recovers_while_they_are_good(
    controller: ReplayController,
) -> None:
    succeed(controller, 30, seconds=SLOW)
    assert controller.figures().gain == 0.05
    before = controller.window
    succeed(controller, seconds=SLOW)
    assert controller.window / before > 0.96  # small steps now
    succeed(controller, 500)
    assert controller.figures().gain == 1.0


def test_it_yields_more_the_greater_the_weight_of_slow_replays(clock: FakeClock) -> None:
    windows = []
    for down in (0.5, 0.75, 1.5):
        controller = begun(clock, 1, down=down)
        succeed(controller, 20)
        for _ in range(200):
            succeed(controller, seconds=SLOW)
            succeed(controller)
        windows.append(controller.window)
    assert windows[0] > windows[1] > windows[2]


def test_the_gain_moves_less_per_replay_the_wider_the_window(clock: FakeClock) -> None:
    controller = begun(clock, 1, most=16)
    succeed(controller, 200)
    assert (controller.window, controller.figures().gain) == (16, 1.0)
    succeed(controller, seconds=SLOW)
    gain = 0.7 ** (1 / 4)  # by the root of the window
    assert controller.figures().gain == pytest.approx(gain)
    gain *= 1.1 ** (1 / controller.window)  # by the window
    succeed(controller)
    assert controller.figures().gain == pytest.approx(gain)


def test_one_slow_replay_halves_the_window_at_most(clock: FakeClock) -> None:
    controller = begun(clock, 8, down=100.0)
    window = controller.window
    succeed(controller, seconds=SLOW)
    assert controller.window == window / 2


def test_a_replay_of_several_calls_is_compared_with_the_sum_of_their_references(
    controller: ReplayController,
) -> None:
    controller.on_start()
    controller.on_success(0.04, reference=0.05)
    assert controller.figures().slow_share == 0
    controller.on_start()
    controller.on_success(0.06, reference=0.05)
    assert controller.figures().slow_share == 0.5


def test_the_round_trip_follows_the_replays(controller: ReplayController, clock: FakeClock) -> None:
    succeed(controller, 100, seconds=2.0)
    assert gap(controller, clock) == pytest.approx(2.0 / controller.window, rel=0.01)


def test_the_share_of_slow_replays_is_that_of_the_latest_50(
    controller: ReplayController,
) -> None:
    succeed(controller, 100, seconds=SLOW)
    assert controller.figures().slow_share == 1.0
    succeed(controller, 25)
    assert controller.figures().slow_share == 0.5


# The reference.


def test_replays_that_are_slow_by_themselves_raise_the_reference_to_thrice_the_live_one(
    clock: FakeClock,
) -> None:
    controller = begun(clock, 8)
    succeed(controller, 8, seconds=SLOW)
    assert controller.figures().reference == 0.025  # a few may be slow by chance
    succeed(controller, seconds=SLOW)
    assert controller.figures().reference == pytest.approx(0.025 * 1.075)
    succeed(controller, 100, seconds=SLOW)
    assert controller.figures().reference == pytest.approx(0.025 * 3)


def test_replays_are_compared_with_what_was_learnt(clock: FakeClock) -> None:
    controller = begun(clock, 8, gain_max=0.0, gain_min=0.0)  # the window stays
    succeed(controller, 50, seconds=SLOW)  # all that is known of the latest ones
    succeed(controller, 5, seconds=0.05)
    assert controller.figures().slow_share == pytest.approx(45 / 50)
    for _ in range(5):
        controller.on_start()
        controller.on_success(0.09, reference=0.05)
    assert controller.figures().slow_share == pytest.approx(40 / 50)


def test_the_reference_is_learnt_from_quiet_replays_in_a_row(clock: FakeClock) -> None:
    controller = begun(clock, 8)
    for live_slow in (0.25,) * 8 + (0.6,) + (0.25,) * 8:
        controller.on_start()
        controller.on_success(SLOW, live_slow=live_slow)
    assert controller.figures().reference == 0.025
    succeed(controller, seconds=SLOW)
    assert controller.figures().reference == pytest.approx(0.025 * 1.075)


def test_the_reference_comes_back_and_never_falls_below_the_live_one(clock: FakeClock) -> None:
    controller = begun(clock, 8, gain_max=0.0, gain_min=0.0)  # the window stays
    succeed(controller, 20, seconds=SLOW)
    raised = controller.figures().reference
    assert raised is not None
    assert raised > 0.025
    succeed(controller, 100)
    assert controller.figures().reference == 0.025


def test_the_reference_stays_while_the_fleet_has_more_than_two_replays_in_flight(
    controller: ReplayController,
) -> None:
    succeed(controller, 30)
    assert controller.window > 20
    succeed(controller, 20, seconds=SLOW)
    assert controller.window > 2
    assert controller.figures().reference == 0.025


def test_the_reference_stays_while_live_calls_are_slow(clock: FakeClock) -> None:
    controller = begun(clock, 8)
    for _ in range(50):
        controller.on_start()
        controller.on_success(SLOW, live_slow=0.4)
    assert controller.figures().reference == 0.025


def test_where_no_live_calls_are_known_only_replays_that_are_all_slow_raise_the_reference(
    clock: FakeClock,
) -> None:
    controller = begun(clock, 8)
    for number in range(60):
        controller.on_start()
        controller.on_success(GOOD if number % 10 == 0 else SLOW, live_slow=None)
    assert controller.figures().reference == 0.025
    for _ in range(11):
        controller.on_start()
        controller.on_success(SLOW, live_slow=None)
    assert controller.figures().reference == pytest.approx(0.025 * 1.075**3)


# Failures.


def test_a_refusal_halves_the_window_and_the_gain_is_small_after_it(
    controller: ReplayController,
) -> None:
    succeed(controller, 10)
    window = controller.window
    fail(controller)
    assert controller.window == window / 2
    figures = controller.figures()
    assert (figures.gain, figures.in_flight) == (0.05, 0)
    assert figures.cuts == {ReplayFailure.REFUSED: 1, ReplayFailure.LATE: 0}


def test_the_refusals_of_one_round_trip_are_one_cut(
    controller: ReplayController, clock: FakeClock
) -> None:
    succeed(controller, 10)
    window, round_trip = controller.window, controller._round_trip
    for _ in range(10):
        fail(controller)
        clock.advance(round_trip / 10)
    assert controller.window == window / 2
    clock.advance(round_trip / 10)
    fail(controller)
    assert controller.window == window / 4
    assert controller.figures().cuts[ReplayFailure.REFUSED] == 2


def test_a_message_that_fails_by_itself_changes_nothing(
    controller: ReplayController, clock: FakeClock
) -> None:
    succeed(controller, 10)
    controller.on_start()
    before = controller.figures()
    allowed = controller.allowed()
    controller.on_failure(ReplayFailure.OWN, retry_after=30.0)
    after = controller.figures()
    assert (after.window, after.gain, after.cuts) == (before.window, before.gain, before.cuts)
    assert after.in_flight == 0
    assert controller.allowed() == allowed


def test_a_replay_that_made_no_call_only_frees_its_place(controller: ReplayController) -> None:
    succeed(controller, 10)
    controller.on_start()
    before = controller.figures()
    controller.cancelled()
    after = controller.figures()
    assert (after.window, after.gain, after.reference) == (
        before.window,
        before.gain,
        before.reference,
    )
    assert after.in_flight == 0


@pytest.mark.parametrize("kind", [ReplayFailure.REFUSED, ReplayFailure.LATE])
def test_after_a_failure_it_waits_for_about_a_round_trip(
    controller: ReplayController, clock: FakeClock, kind: ReplayFailure
) -> None:
    clock.advance(60.0)
    fail(controller, kind)
    assert controller.allowed() == pytest.approx(controller._round_trip)


def test_it_waits_for_as_long_as_the_server_asks(controller: ReplayController) -> None:
    fail(controller, retry_after=7.0)
    assert controller.allowed() == 7.0


def test_the_refused_window_is_remembered_and_reached_again_in_ten_seconds(
    controller: ReplayController, clock: FakeClock
) -> None:
    succeed(controller, 30)
    refused = controller.window
    fail(controller)
    widest = []
    for _ in range(3):
        clock.advance(4.999)
        succeed(controller, 500)  # all is well, as durations go
        widest.append(controller.window / refused)
    curve = [1 + 0.3 * (age - 1) ** 3 for age in (0.4999, 0.9998, 1.4997)]
    assert widest == pytest.approx(curve)


def test_the_memory_of_a_refusal_takes_no_more_than_the_cut(clock: FakeClock) -> None:
    controller = begun(clock, 1, depth=0.9)
    succeed(controller, 10)
    window = controller.window
    fail(controller)
    succeed(controller, 100)
    assert controller.window == window / 2


def test_a_refused_window_is_forgotten_after_half_a_minute(
    controller: ReplayController, clock: FakeClock
) -> None:
    succeed(controller, 3)
    refused = controller.window
    fail(controller)
    clock.advance(29.9)
    succeed(controller, 3000)
    assert controller.window == pytest.approx(3.4 * refused, rel=0.03)
    clock.advance(0.2)
    succeed(controller, 3000)
    assert controller.window == 64


def test_a_late_replay_halves_the_window_and_is_not_remembered(
    controller: ReplayController,
) -> None:
    succeed(controller, 30)
    window = controller.window
    fail(controller, ReplayFailure.LATE)
    assert controller.window == window / 2
    assert controller.figures().cuts == {ReplayFailure.REFUSED: 0, ReplayFailure.LATE: 1}
    succeed(controller, 500)
    assert controller.window == 64
