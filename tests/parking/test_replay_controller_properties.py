"""What holds of the controller whatever happens, in whatever order."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fusewire.breaker import Baseline
from fusewire.parking._controller_settings import ControllerSettings
from fusewire.parking._replay_controller import ReplayController, ReplayFailure, ReplayFigures
from fusewire.testing import FakeClock
from tests.support.controllers import MEASURED

SETTINGS = ControllerSettings()

SECONDS = st.sampled_from([0.0, 0.0, 0.001, 0.005, 0.02, 0.1, 1.0, 9.0, 40.0, 300.0])
DURATIONS = st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.03, 0.2, 5.0])
REPLICAS = st.sampled_from([1, 2, 7, 8, 9, 100, 1000])
TURNS = st.floats(0, 1, exclude_max=True)
SEEDS = st.integers(0, 2**32)


def participants(replicas: int, age: float) -> float:
    return min(replicas, 8 * 2 ** min(40.0, age / 30))


class Anything(RuleBasedStateMachine):
    """Anything that a replica can tell a controller, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(0)
        self.last_cut = -math.inf

    @initialize(seed=SEEDS, n=REPLICAS, turn=TURNS, measured=st.booleans())
    def start_up(self, seed: int, n: int, turn: float, measured: bool) -> None:  # noqa: FBT001
        self.controller = ReplayController(
            SETTINGS, clock=self.clock, rng=random.Random(seed).random
        )
        self.begin(n, turn, measured, first=True)

    @rule(n=REPLICAS, turn=TURNS, measured=st.booleans(), first=st.booleans())
    def begin_again(self, n: int, turn: float, measured: bool, first: bool) -> None:  # noqa: FBT001
        self.begin(n, turn, measured, first=first)

    def begin(self, n: int, turn: float, measured: bool, *, first: bool) -> None:  # noqa: FBT001
        self.controller.begin(n, MEASURED if measured else None, turn=turn, first=first)
        self.began = self.clock()
        self.last_cut = -math.inf

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def wait_until_allowed(self) -> None:
        if (seconds := self.controller.allowed()) < math.inf:
            self.clock.advance(seconds)

    @precondition(lambda self: self.controller.allowed() == 0)
    @rule()
    def start(self) -> None:
        assert self.controller.taking_part
        self.controller.on_start()
        assert self.controller.in_flight <= max(1, math.ceil(self.controller.window))

    @precondition(lambda self: self.controller.in_flight)
    @rule(
        seconds=DURATIONS,
        reference=st.none() | st.just(0.05),
        live_slow=st.sampled_from([None, 0.0, 0.25, 0.6]),
    )
    def succeed(self, seconds: float, reference: float | None, live_slow: float | None) -> None:
        before = self.controller.figures()
        self.controller.on_success(seconds, reference=reference, live_slow=live_slow)
        after = self.controller.figures()
        assert after.in_flight == before.in_flight - 1
        assert after.cuts == before.cuts

    @precondition(lambda self: self.controller.in_flight)
    @rule(seconds=DURATIONS)
    def succeed_without_a_measure(self, seconds: float) -> None:
        before = self.controller.figures()
        self.controller.on_unknown(seconds)
        after = self.controller.figures()
        assert after.in_flight == before.in_flight - 1
        assert (after.gain, after.slow_share) == (before.gain, before.slow_share)
        taking_part = participants(before.replicas, self.clock() - self.began)
        most = before.window
        if before.replicas <= SETTINGS.few:
            most = max(most, min(2 * most, 1.0, SETTINGS.start / taking_part))
        assert after.window <= max(most, SETTINGS.floor / taking_part)

    @precondition(lambda self: self.controller.in_flight)
    @rule(
        kind=st.sampled_from([ReplayFailure.REFUSED, ReplayFailure.LATE]),
        retry_after=st.sampled_from([0.0, 0.0, 3.0]),
    )
    def fail(self, kind: ReplayFailure, retry_after: float) -> None:
        before, round_trip = self.controller.figures(), self.controller._round_trip
        self.controller.on_failure(kind, retry_after)
        after = self.controller.figures()
        assert after.in_flight == before.in_flight - 1
        assert self.controller.allowed() > retry_after - 0.001
        if after.cuts == before.cuts:
            assert after.window == before.window
            return
        assert self.clock() - self.last_cut > round_trip  # one cut in a round trip
        self.last_cut = self.clock()
        assert after.cuts[kind] == before.cuts[kind] + 1
        assert after.window <= before.window
        assert after.window >= before.window * SETTINGS.cut

    @precondition(lambda self: self.controller.in_flight)
    @rule(own=st.booleans())
    def end_without_a_sign(self, own: bool) -> None:  # noqa: FBT001
        before = self.everything()
        if own:
            self.controller.on_failure(ReplayFailure.OWN, 30.0)
        else:
            self.controller.cancelled()
        assert self.everything() == {**before, "_in_flight": before["_in_flight"] - 1}

    def everything(self) -> dict[str, Any]:
        state = dict(vars(self.controller))
        for part in ("_reference", "_refused"):
            state[part] = dict(vars(state[part]))
        return {**state, "_slow": list(state["_slow"]), "_cuts": dict(state["_cuts"])}

    @rule(n=REPLICAS)
    def count(self, n: int) -> None:
        took_part = self.controller.taking_part
        self.controller.replicas(n)
        assert self.controller.taking_part or not took_part

    @rule()
    def open(self) -> None:
        took_part, narrow = self.controller.taking_part, self.controller.window <= 1
        self.controller.opened()
        assert narrow or self.controller.window <= 1 or not took_part

    @invariant()
    def the_window_is_within_its_bounds(self) -> None:
        figures: ReplayFigures = self.controller.figures()
        assert 0 < figures.window <= SETTINGS.most
        assert SETTINGS.gain_min <= figures.gain <= SETTINGS.gain_max
        if figures.taking_part:
            age = self.clock() - self.began
            floor = SETTINGS.floor / participants(figures.replicas, age)
            assert figures.window >= floor * 0.999999

    @invariant()
    def the_reference_is_at_least_the_live_one_and_at_most_thrice_that(self) -> None:
        reference, live = self.controller.figures().reference, self.controller._reference._live
        assert (reference is None) == (live is None)
        if reference is not None and live is not None:
            assert live <= reference <= 3 * live

    @invariant()
    def it_is_allowed_in_some_time_or_after_an_end(self) -> None:
        allowed = self.controller.allowed()
        assert allowed >= 0
        assert allowed < math.inf or self.controller.in_flight

    @invariant()
    def nothing_is_allowed_before_its_turn(self) -> None:
        assert self.controller.allowed() >= self.controller.starts_in
        assert self.controller.taking_part == (self.controller.starts_in == 0)


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


ENDS = st.lists(st.sampled_from(["good", "good", "slow", "refused", "late", "own"]), max_size=60)


def after(ends: list[str], seed: int, n: int = 1) -> tuple[ReplayController, FakeClock]:
    """Return a controller that some replays have ended for."""
    clock = FakeClock(0)
    controller = ReplayController(SETTINGS, clock=clock, rng=random.Random(seed).random)
    controller.begin(n, MEASURED, turn=0.0)
    for end in ends:
        clock.advance(controller.allowed())
        controller.on_start()
        finish(controller, end)
    return controller, clock


def finish(controller: ReplayController, end: str) -> None:
    if end in ("good", "slow"):
        controller.on_success(0.02 if end == "good" else 1.0)
    else:
        controller.on_failure(ReplayFailure(end))


@settings(max_examples=30, deadline=None)
@given(ENDS, SEEDS, REPLICAS)
def test_good_replays_widen_the_window_to_the_most_whatever_was_before(
    ends: list[str], seed: int, n: int
) -> None:
    controller, clock = after(ends, seed, n)
    clock.advance(3.001 * SETTINGS.again)  # a refusal is remembered for three times that
    for _ in range(3000):
        controller.on_start()
        finish(controller, "good")
    assert controller.window == SETTINGS.most


@settings(max_examples=30, deadline=None)
@given(ENDS, SEEDS, REPLICAS)
def test_slow_replays_narrow_the_window_to_the_floor_whatever_was_before(
    ends: list[str], seed: int, n: int
) -> None:
    controller, clock = after(ends, seed, n)
    for _ in range(3000):
        controller.on_start()
        finish(controller, "slow")
    floor = SETTINGS.floor / participants(n, clock())
    assert controller.window <= floor * 1.000001


@settings(deadline=None)
@given(ENDS, SEEDS, st.lists(SECONDS, max_size=30), st.integers(0, 3))
def test_no_time_sees_more_starts_than_the_window_paces_and_two(
    ends: list[str], seed: int, pauses: list[float], at_once: int
) -> None:
    controller, clock = after(ends, seed)
    window, round_trip = controller.window, controller._round_trip
    times = []
    for pause in pauses:
        clock.advance(controller.allowed() + pause)
        for _ in range(at_once + 1):
            if controller.allowed() == 0:
                controller.on_start()
                controller.cancelled()
                times.append(clock())
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            seconds = times[last] - begin
            assert last - first + 1 <= window * seconds / round_trip * 1.34 + 2


@settings(deadline=None)
@given(ENDS, SEEDS)
def test_the_same_chance_gives_the_same_course(ends: list[str], seed: int) -> None:
    (one, _), (other, _) = after(ends, seed), after(ends, seed)
    assert one.figures() == other.figures()
    assert one.allowed() == other.allowed()


@settings(deadline=None)
@given(ENDS, SEEDS, st.sampled_from([0.1, 3.0, 100.0]))
def test_only_ratios_of_durations_count(ends: list[str], seed: int, scale: float) -> None:
    """The same course on a server ten times faster is ten times faster."""
    base, scaled = (_course(ends, seed, by) for by in (1.0, scale))
    assert [round(window, 6) for window in base] == [round(window, 6) for window in scaled]


def _course(ends: list[str], seed: int, scale: float) -> list[float]:
    clock = FakeClock(0)
    unit = replace(SETTINGS, again=SETTINGS.again * scale, doubling=SETTINGS.doubling * scale)
    controller = ReplayController(unit, clock=clock, rng=random.Random(seed).random)
    controller.begin(1, Baseline(0.025 * scale, 0.02 * scale, 100), turn=0.0)
    windows = []
    for end in ends:
        clock.advance(controller.allowed())
        controller.on_start()
        if end in ("good", "slow"):
            controller.on_success(scale * (0.02 if end == "good" else 1.0))
        else:
            controller.on_failure(ReplayFailure(end))
        windows.append(controller.window)
    return windows
