"""When messages that fail alike wait, and when one of them is tried: the state machine."""

from __future__ import annotations

import itertools
import logging
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fusewire.parking._failures import Failure
from fusewire.parking._pauses import ALIKE, FIRST_WAIT, LONGEST_WAIT, Change, Pause, Pauses
from fusewire.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "unauthenticated"  # noqa: S105 - a condition, and no token


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(0)


@pytest.fixture
def pause(clock: FakeClock) -> Pause:
    return Pause(now=clock, chance=lambda: 1.0)


def fail(
    pause: Pause, *operations: str, kind: str = TOKEN, condition: bool = True
) -> Change | None:
    change = None
    for operation in operations:
        change = pause.failed(operation, kind, condition=condition, probe=False)
    return change


def paused(pause: Pause) -> Pause:
    assert fail(pause, "a", "b", "c") is Change.BEGAN
    return pause


def test_three_different_messages_in_a_row_that_fail_by_one_condition_begin_it(
    pause: Pause,
) -> None:
    assert fail(pause, "a", "b") is None
    assert pause.wait() == 0
    assert fail(pause, "c") is Change.BEGAN
    assert pause.wait() == FIRST_WAIT


def test_ten_that_fail_alike_otherwise_begin_it_and_one_that_fails_ten_times_does_not(
    pause: Pause,
) -> None:
    assert fail(pause, *["a"] * 30, kind="KeyError", condition=False) is None
    others = map(str, range(ALIKE - 2))
    assert fail(pause, *others, kind="KeyError", condition=False) is None
    assert fail(pause, "last", kind="KeyError", condition=False) is Change.BEGAN


def test_a_success_or_another_kind_of_failure_between_breaks_the_row(pause: Pause) -> None:
    fail(pause, "a", "b")
    fail(pause, "c", kind="KeyError", condition=False)
    assert fail(pause, "d", "e") is None
    assert pause.succeeded() is None
    assert fail(pause, "f", "g") is None


def test_a_message_that_comes_round_again_by_a_condition_begins_it_however_few_there_are(
    pause: Pause,
) -> None:
    # Or the one message of a lane would be tried again at once, for as long as the token is bad.
    assert fail(pause, "a") is None
    assert fail(pause, "b", kind="permission_denied") is None
    assert fail(pause, "a") is Change.BEGAN


def test_probes_are_made_after_growing_waits_and_one_at_a_time(
    pause: Pause, clock: FakeClock
) -> None:
    paused(pause)
    waits = []
    for _ in range(8):
        waits.append(pause.wait())
        clock.advance(pause.wait())
        assert pause.wait() == 0
        assert pause.begin()
        assert pause.wait() > 0  # for all others
        pause.failed("a", TOKEN, condition=True, probe=True)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_chance_takes_up_to_half_of_a_wait_away(clock: FakeClock) -> None:
    pause = paused(Pause(now=clock, chance=lambda: 0.0))
    assert pause.wait() == FIRST_WAIT / 2


def test_a_probe_that_fails_otherwise_says_nothing_of_how_long_to_wait(
    pause: Pause, clock: FakeClock
) -> None:
    paused(pause)
    clock.advance(1)
    assert pause.begin()
    pause.failed("a", "KeyError", condition=False, probe=True)
    assert pause.wait() == FIRST_WAIT


def test_what_began_before_it_and_fails_in_it_does_not_lengthen_it(pause: Pause) -> None:
    paused(pause)
    fail(pause, "d", "e", "f", "g")
    assert pause.wait() == FIRST_WAIT


def test_a_probe_that_ends_without_an_answer_is_made_again_at_once(
    pause: Pause, clock: FakeClock
) -> None:
    paused(pause)
    clock.advance(1)
    assert pause.begin()
    pause.release()
    assert pause.wait() == 0
    assert pause.begin()


def test_a_probe_that_hangs_keeps_the_others_waiting_for_a_minute_and_no_longer(
    pause: Pause, clock: FakeClock
) -> None:
    paused(pause)
    clock.advance(1)
    assert pause.begin()
    clock.advance(LONGEST_WAIT - 1)
    assert pause.wait() == 1
    clock.advance(1)
    assert pause.wait() == 0
    assert pause.begin()


def test_a_success_ends_it(pause: Pause, clock: FakeClock) -> None:
    paused(pause)
    clock.advance(1)
    assert pause.begin()
    assert pause.succeeded() is Change.ENDED
    assert pause.wait() == 0
    assert fail(pause, "a", "b") is None


def test_it_is_said_again_every_ten_minutes_and_not_at_every_probe(
    pause: Pause, clock: FakeClock
) -> None:
    paused(pause)
    said = []
    for _ in range(40):
        clock.advance(pause.wait())
        pause.begin()
        if pause.failed("a", TOKEN, condition=True, probe=True) is Change.STILL:
            said.append(clock())
    assert len(said) == 3  # in 36 minutes
    assert min(later - earlier for earlier, later in itertools.pairwise(said)) >= 600


class Machine(RuleBasedStateMachine):
    """Whatever happens in whatever order, one probe at a time begins, and never too early."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.chances: list[float] = [0.0]
        self.pause = Pause(now=self.clock, chance=lambda: self.chances[-1])
        self.row: tuple[str, set[str]] = ("", set())
        self.by_condition: set[str] = set()
        self.probing = False
        self.failed_probes = 0
        self.last_probe = -math.inf
        self.probe_began = -math.inf

    @rule(
        operation=st.sampled_from("abcdefghijkl"),
        kind=st.sampled_from(["unauthenticated", "refused", "KeyError", "INTERNAL"]),
        chance=st.floats(0, 1, exclude_max=True),
    )
    def a_message_fails(self, operation: str, kind: str, chance: float) -> None:
        self.chances.append(chance)
        condition = kind in {"unauthenticated", "refused"}
        was_paused = self.pause.began is not None
        again = condition and operation in self.by_condition
        change = self.pause.failed(operation, kind, condition=condition, probe=False)
        if was_paused:
            assert change is None
            return
        if self.row[0] != kind:
            self.row = (kind, set())
        self.row[1].add(operation)
        if condition:
            self.by_condition.add(operation)
        enough = again or len(self.row[1]) >= (3 if condition else 10)
        assert (change is Change.BEGAN) == enough == (self.pause.began is not None)
        if enough:
            self.failed_probes = 0
            self.last_probe = self.clock()

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.pause.began is not None and not self.pause.wait())
    @rule()
    def a_probe_begins(self) -> None:
        # One that hangs is given up.
        assert not self.probing or self.clock() - self.probe_began >= LONGEST_WAIT
        least = min(2**self.failed_probes, LONGEST_WAIT) / 2
        assert self.clock() - self.last_probe >= least - 1e-6
        assert self.pause.begin()
        self.probing = True
        self.probe_began = self.clock()

    @precondition(lambda self: self.probing)
    @rule(chance=st.floats(0, 1, exclude_max=True))
    def the_probe_fails(self, chance: float) -> None:
        self.chances.append(chance)
        assert self.pause.kind is not None
        self.pause.failed("a", self.pause.kind, condition=True, probe=True)
        self.probing = False
        self.failed_probes += 1
        self.last_probe = self.clock()

    @precondition(lambda self: self.probing)
    @rule()
    def the_probe_says_nothing(self) -> None:
        self.pause.release()
        self.probing = False
        self.failed_probes = 0  # another may begin at once
        self.last_probe = -math.inf

    @rule()
    def a_message_succeeds(self) -> None:
        was_paused = self.pause.began is not None
        assert (self.pause.succeeded() is Change.ENDED) == was_paused
        self.row = ("", set())
        self.by_condition.clear()
        self.probing = False

    @invariant()
    def nobody_waits_for_more_than_a_minute(self) -> None:
        assert 0 <= self.pause.wait() <= LONGEST_WAIT + 1e-9  # sums of times are rounded
        assert not (self.pause.wait() and self.pause.overdue())
        if self.pause.began is None:
            assert self.pause.wait() == self.pause.overdue() == 0


TestMachine = Machine.TestCase


@pytest.fixture
def pauses(clock: FakeClock) -> Pauses:
    return Pauses(now_ms=lambda: round(clock() * 1000), now=clock, chance=lambda: 1.0)


def by_token(dependency: str = "payments") -> Failure:
    return Failure(dependency, TOKEN, TOKEN)


def pause_of(pauses: Pauses, dependency: str = "payments") -> None:
    for operation in "abc":
        pauses.failed(by_token(dependency), operation, probes=())


def test_each_dependency_has_a_pause_of_its_own(pauses: Pauses, clock: FakeClock) -> None:
    pause_of(pauses, "payments")
    assert pauses.wait("payments") == 1
    assert pauses.wait("stock") == 0
    assert pauses.begin(["stock", "payments"]) == ()  # not due
    clock.advance(1)
    assert pauses.begin(["stock", "payments"]) == ("payments",)


def test_what_fails_alike_waits_and_what_fails_otherwise_is_its_own_failure(
    pauses: Pauses,
) -> None:
    assert not pauses.failed(by_token(), "a", probes=())
    assert not pauses.failed(by_token(), "b", probes=())
    assert pauses.failed(by_token(), "c", probes=())
    assert pauses.failed(by_token(), "d", probes=())
    assert not pauses.failed(Failure("payments", "KeyError"), "e", probes=())
    assert not pauses.failed(Failure("", "KeyError"), "f", probes=())


def test_a_probe_is_left_to_others_for_as_long_as_one_is_patient(
    pauses: Pauses, clock: FakeClock
) -> None:
    pause_of(pauses)
    clock.advance(1)
    assert pauses.wait("payments") == 0
    assert pauses.wait("payments", patience=10) == 10
    clock.advance(9)
    assert pauses.wait("payments", patience=10) == 1
    clock.advance(1)
    assert pauses.wait("payments", patience=10) == 0


def test_a_handled_message_is_evidence_against_those_that_failed_before_it(
    pauses: Pauses, clock: FakeClock
) -> None:
    clock.advance(5)
    assert not pauses.handled_since("payments", 1000)
    pauses.succeeded(["payments"])
    assert pauses.handled_since("payments", 4999)
    assert not pauses.handled_since("payments", 5000)
    assert not pauses.handled_since("payments", None)
    assert not pauses.handled_since("stock", 0)


def test_a_waiter_sees_each_change(pauses: Pauses, clock: FakeClock) -> None:
    told: list[float] = []
    forget: Callable[[], None] = pauses.watch(lambda: told.append(clock()))
    pause_of(pauses)
    assert told
    told.clear()
    clock.advance(1)
    probes = pauses.begin(["payments"])
    pauses.release(probes)
    assert len(told) == 1
    pauses.succeeded(["payments"])
    assert len(told) == 2
    forget()
    pause_of(pauses)
    assert len(told) == 2


def test_what_it_remembers_is_bounded_and_no_pause_is_forgotten(pauses: Pauses) -> None:
    pause_of(pauses)
    for number in range(3000):
        pauses.failed(by_token(str(number)), "a", probes=())
        pauses.succeeded([f"other-{number}"])
    assert len(pauses._pauses) <= 1000
    assert len(pauses._handled_at_ms) <= 1000
    assert pauses.wait("payments") > 0


def test_one_warning_says_that_messages_wait_and_one_line_that_they_go_on(
    pauses: Pauses, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fusewire.parking")
    pause_of(pauses)
    clock.advance(1)
    pauses.failed(by_token(), "a", probes=pauses.begin(["payments"]))
    clock.advance(2)
    pauses.begin(["payments"])
    pauses.succeeded(["payments"])
    pauses.succeeded(["payments"])
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"]
    assert "'payments' fail alike (unauthenticated)" in caplog.messages[0]
    assert "3 s after" in caplog.messages[1]
