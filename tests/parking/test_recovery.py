"""When the replay of one dependency begins, and what it learns from each replay."""

from __future__ import annotations

import math
from collections import deque

import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.operation import TimedCall
from fusewire.parking import ReplayFailure
from fusewire.parking._controller_settings import ControllerSettings
from fusewire.parking._load_sign import LoadSign
from fusewire.parking._recovery import Recovery, Standing
from fusewire.parking._replay_controller import ReplayController
from fusewire.parking._replay_measures import HandlerTimes, ReplayMeasures
from fusewire.testing import FakeClock

TIMEOUT = 30.0
REFUSED = LoadSign(ReplayFailure.REFUSED)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def handler(clock: FakeClock) -> HandlerTimes:
    return HandlerTimes(clock)


@pytest.fixture
def recovery(clock: FakeClock, handler: HandlerTimes) -> Recovery:
    for _ in range(20):
        handler.of("payments").record(0.1)
    return Recovery(
        ReplayController(ControllerSettings(), clock=clock, rng=lambda: 0.0),
        ReplayMeasures("payments", BreakerRegistry(), handler, enough=20),
        recovery_timeout=lambda: TIMEOUT,
        clock=clock,
    )


def begun(recovery: Recovery) -> Recovery:
    recovery.begin(1, turn=0.0, first=True)
    return recovery


def succeed(recovery: Recovery, times: int) -> None:
    for _ in range(times):
        recovery.succeeded(recovery.start(), (), 0.01)


def test_nothing_is_due_while_nothing_was_down(recovery: Recovery) -> None:
    recovery.see(Standing.CLOSED)
    assert not recovery.due
    assert not recovery.begun


@pytest.mark.parametrize("admits", [Standing.PROBING, Standing.CLOSED])
def test_it_is_due_after_an_outage(recovery: Recovery, admits: Standing) -> None:
    recovery.see(Standing.OPEN)
    recovery.see(admits)
    assert recovery.due
    assert not begun(recovery).due


def test_it_is_due_with_the_first_probe_of_an_outage_that_nobody_saw_begin(
    recovery: Recovery,
) -> None:
    recovery.see(Standing.PROBING)
    assert recovery.due


def test_a_circuit_that_opens_for_one_open_time_takes_the_window_back_and_no_more(
    recovery: Recovery, clock: FakeClock
) -> None:
    succeed(begun(recovery), 50)
    assert recovery.controller.window > 10
    recovery.see(Standing.OPEN)
    recovery.see(Standing.OPEN)
    assert recovery.open
    assert recovery.controller.window == 1
    clock.advance(TIMEOUT + 0.1)
    recovery.see(Standing.PROBING)
    recovery.see(Standing.CLOSED)
    assert not recovery.open
    assert not recovery.due


def test_another_outage_begins_again(recovery: Recovery, clock: FakeClock) -> None:
    begun(recovery)
    recovery.see(Standing.OPEN)
    clock.advance(TIMEOUT + 0.1)
    recovery.see(Standing.PROBING)
    assert not recovery.due
    recovery.see(Standing.OPEN)  # its first probe failed
    clock.advance(TIMEOUT + 0.1)
    recovery.see(Standing.PROBING)
    assert recovery.due


def test_what_was_one_outage_counts_for_no_later_one(recovery: Recovery, clock: FakeClock) -> None:
    begun(recovery)
    for _ in range(3):
        recovery.see(Standing.OPEN)
        clock.advance(TIMEOUT + 0.1)
        recovery.see(Standing.PROBING)
        recovery.see(Standing.CLOSED)
        clock.advance(TIMEOUT)
    assert not recovery.due


def test_a_lane_that_was_paused_by_a_condition_begins_again(recovery: Recovery) -> None:
    begun(recovery)
    recovery.see(Standing.PAUSED)
    assert not recovery.due  # its probes are replays too
    recovery.see(Standing.CLOSED)
    assert recovery.due


def test_an_opening_that_is_seen_by_its_first_probe_takes_the_window_back_once(
    recovery: Recovery,
) -> None:
    succeed(begun(recovery), 50)
    recovery.see(Standing.PROBING)
    assert recovery.controller.window == 1
    succeed(recovery, 3)
    window = recovery.controller.window
    recovery.see(Standing.PROBING)  # the same outage
    assert recovery.controller.window == window


def test_a_success_that_began_before_the_circuit_opened_does_not_count_after_it(
    recovery: Recovery,
) -> None:
    succeed(begun(recovery), 50)
    before = [recovery.start() for _ in range(8)]
    recovery.see(Standing.OPEN)
    for each in before:
        recovery.succeeded(each, (), 0.01)
    assert recovery.controller.window == 1
    assert recovery.controller.in_flight == 0


def test_nor_does_a_failure(recovery: Recovery) -> None:
    succeed(begun(recovery), 50)
    before = recovery.start()
    recovery.see(Standing.OPEN)
    recovery.failed(before, REFUSED)
    assert recovery.controller.window == 1
    assert sum(recovery.controller.figures().cuts.values()) == 0


def test_slow_replays_are_those_that_take_longer_than_live_calls_did(recovery: Recovery) -> None:
    begun(recovery)
    recovery.succeeded(recovery.start(), (), 0.05)
    assert recovery.controller.figures().slow_share == 0
    recovery.succeeded(recovery.start(), (), 0.5)
    assert recovery.controller.figures().slow_share == 0.5


def test_a_method_that_is_called_first_in_a_replay_does_not_hold_its_lane_at_the_floor(
    clock: FakeClock, handler: HandlerTimes
) -> None:
    """Replays of half a second, beside live calls of another method that take 10 ms."""
    registry = BreakerRegistry(clock=clock)
    registry.measure_durations()
    durations = registry.get("payments").durations
    assert durations is not None
    for _ in range(20):
        durations.record(0.01, method="/p.P/Charge")
    recovery = Recovery(
        ReplayController(ControllerSettings(), clock=clock, rng=lambda: 0.5),
        ReplayMeasures("payments", registry, handler, enough=20),
        recovery_timeout=lambda: TIMEOUT,
        clock=clock,
    )
    began = clock()
    done, running = replayed(begun(recovery), clock, 200, TimedCall("payments", "/p.P/Refund", 0.5))
    assert (done, running) == (200, 0)
    assert clock() - began < 20  # a hundred seconds one after the other
    assert recovery.controller.figures().slow_share == 0
    assert recovery.controller.window > 10


def test_replays_that_nothing_is_known_of_make_a_window_neither_wider_nor_narrower(
    recovery: Recovery,
) -> None:
    succeed(begun(recovery), 30)
    window, gain = recovery.controller.window, recovery.controller.figures().gain
    new = TimedCall("payments", "/p.P/Refund", 5.0)
    for _ in range(20):
        recovery.succeeded(recovery.start(), (new,), 6.0)
    figures = recovery.controller.figures()
    assert (figures.window, figures.gain, figures.in_flight) == (window, gain, 0)
    for _ in range(20):
        recovery.succeeded(recovery.start(), (new._replace(seconds=7.0),), 8.0)
    assert recovery.controller.window < window


def replayed(
    recovery: Recovery, clock: FakeClock, messages: int, call: TimedCall
) -> tuple[int, int]:
    """Replay some messages in virtual time; return how many are done, and how many still run."""
    done, ends = 0, deque[tuple[float, int]]()
    while done < messages:
        controller = recovery.controller
        while done + len(ends) < messages and controller.allowed() == 0:
            ends.append((clock() + call.seconds, recovery.start()))
        soon = min(controller.allowed(), ends[0][0] - clock() if ends else math.inf)
        clock.advance(max(soon, 1e-6))
        while ends and ends[0][0] <= clock():
            recovery.succeeded(ends.popleft()[1], (call,), call.seconds)
            done += 1
    return done, recovery.controller.in_flight


def test_the_reference_stays_over_a_second_outage_and_goes_with_the_last_message(
    recovery: Recovery, handler: HandlerTimes
) -> None:
    begun(recovery)
    before = recovery.controller.figures().reference
    for _ in range(100):
        handler.of("payments").record(3.0)
    begun(recovery)
    assert recovery.controller.figures().reference == before
    recovery.end()
    assert not recovery.begun
    begun(recovery)
    after = recovery.controller.figures().reference
    assert after is not None
    assert before is not None
    assert after > 10 * before


def test_messages_are_taken_when_one_may_begin_soon(recovery: Recovery, clock: FakeClock) -> None:
    begun(recovery)
    assert recovery.takes_messages_in() == 0
    recovery.failed(recovery.start(), LoadSign(ReplayFailure.REFUSED, 10.0))
    assert recovery.controller.window < 1
    assert recovery.takes_messages_in() == pytest.approx(5.0)
    clock.advance(5.0)
    assert recovery.takes_messages_in() == 0


def test_no_message_is_taken_before_the_replica_takes_part(
    recovery: Recovery, clock: FakeClock
) -> None:
    recovery.begin(1000, turn=0.999, first=True)
    assert recovery.takes_messages_in() == pytest.approx(recovery.controller.starts_in)
    assert recovery.takes_messages_in() > 200
    recovery.controller.replicas(1)
    assert recovery.takes_messages_in() < 10
