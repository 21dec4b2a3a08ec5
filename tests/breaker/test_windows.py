"""Windows: the latest calls, by number or by time, and the rates that open a circuit."""

from __future__ import annotations

import math
import random
import sys
from collections import deque
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerSettings,
    Bucket,
    Cause,
    CircuitBreaker,
    CircuitState,
    Event,
    Outcome,
    Reason,
    StateChanged,
)
from fusewire.breaker._windows import FAILED, SLOW, CountWindow, NoWindow, TimeWindow, make_window

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def breaker_with(clock: FakeClock, **settings: object) -> CircuitBreaker:
    rules = BreakerSettings(**{"failure_threshold": 1_000_000, **settings})  # type: ignore[arg-type]  # each test names its own
    return CircuitBreaker("payments", settings=rules, clock=clock)


def reason_of(breaker: CircuitBreaker) -> Reason | None:
    return breaker.snapshot().reason


def test_the_failure_rate_opens_from_the_minimum_of_calls_on(clock: FakeClock) -> None:
    breaker = breaker_with(clock, window_calls=10, minimum_calls=4, failure_rate_threshold=0.5)
    for _ in range(3):
        breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED
    breaker.acquire().success()
    assert breaker.state is CircuitState.OPEN
    assert reason_of(breaker) == Reason(Cause.FAILURE_RATE, 0.75, 0.5, 4)
    assert str(reason_of(breaker)) == "3 of 4 calls failed: a rate of 0.75, threshold 0.5"


def test_a_rate_that_is_met_exactly_opens(clock: FakeClock) -> None:
    breaker = breaker_with(clock, window_calls=100, minimum_calls=100, failure_rate_threshold=0.07)
    for _ in range(93):
        breaker.acquire().success()
    for _ in range(6):
        breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED
    breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN


def test_calls_that_fall_out_of_a_count_window_no_longer_count(clock: FakeClock) -> None:
    breaker = breaker_with(clock, window_calls=4, minimum_calls=4, failure_rate_threshold=0.5)
    for outcome in ("failure", "success", "success", "success", "failure", "success"):
        getattr(breaker.acquire(), outcome)()
    assert breaker.state is CircuitState.CLOSED
    assert breaker.snapshot().failed == 1
    breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN


def test_calls_that_grow_too_old_for_a_time_window_no_longer_count(clock: FakeClock) -> None:
    breaker = breaker_with(clock, window_seconds=20, minimum_calls=2, failure_rate_threshold=0.6)
    breaker.acquire().failure()
    clock.advance(19)
    assert breaker.snapshot().failed == 1
    clock.advance(1)
    assert breaker.snapshot().failed == 0
    breaker.acquire().success()
    breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED


def test_the_slow_call_rate_opens(clock: FakeClock) -> None:
    breaker = breaker_with(
        clock,
        window_calls=4,
        minimum_calls=2,
        slow_call_duration=2.0,
        slow_call_rate_threshold=1.0,
    )
    guarded = breaker(clock.advance)
    guarded(2.0)
    guarded(2.5)
    assert breaker.state is CircuitState.CLOSED
    assert breaker.snapshot().slow == 1
    for _ in range(3):
        guarded(3.0)
    assert breaker.state is CircuitState.OPEN
    assert reason_of(breaker) == Reason(Cause.SLOW_CALL_RATE, 1.0, 1.0, 4)
    assert str(reason_of(breaker)) == "4 of 4 calls were slow: a rate of 1, threshold 1"


def test_a_failure_that_was_slow_counts_as_both(clock: FakeClock) -> None:
    breaker = breaker_with(clock, window_calls=4, slow_call_duration=2.0, minimum_calls=1)
    permit = breaker.acquire()
    clock.advance(3)
    permit.failure()
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.failed, snapshot.slow) == (1, 1, 1)
    assert snapshot.failure_rate == snapshot.slow_call_rate == 1.0


def test_a_call_that_is_not_timed_is_never_slow(clock: FakeClock) -> None:
    breaker = breaker_with(clock, window_calls=4, slow_call_duration=2.0, minimum_calls=1)
    permit = breaker.acquire(timed=False)
    clock.advance(1000)
    permit.success()
    assert breaker.snapshot().counters.slow == 0


def test_the_rates_of_an_empty_window_are_zero(clock: FakeClock) -> None:
    snapshot = breaker_with(clock, window_calls=4, minimum_calls=1).snapshot()
    assert snapshot.failure_rate == snapshot.slow_call_rate == 0.0


def test_slow_probes_fail_where_slow_calls_open(clock: FakeClock) -> None:
    breaker = breaker_with(
        clock,
        failure_threshold=1,
        window_calls=4,
        minimum_calls=1,
        slow_call_duration=2.0,
        slow_call_rate_threshold=0.5,
        half_open_max_calls=1,
    )
    heard: list[Event] = []
    breaker.add_listener(heard.append, StateChanged)
    breaker.acquire().failure()
    clock.advance(30)
    probe = breaker.acquire()
    clock.advance(3)
    probe.success()
    assert breaker.state is CircuitState.OPEN
    last = heard[-1]
    assert isinstance(last, StateChanged)
    assert last.reason == Reason(Cause.PROBE_SLOW, 3.0, 2.0)
    assert str(last.reason) == "a probe took 3 s, slow is more than 2 s"
    clock.advance(30)
    breaker.acquire().success()
    assert breaker.state is CircuitState.CLOSED


def test_slow_probes_close_where_slow_calls_are_only_counted(clock: FakeClock) -> None:
    breaker = breaker_with(
        clock, failure_threshold=1, slow_call_duration=2.0, half_open_max_calls=1
    )
    breaker.acquire().failure()
    clock.advance(30)
    probe = breaker.acquire()
    clock.advance(3)
    probe.success()
    assert breaker.state is CircuitState.CLOSED


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_count_window_agrees_with_a_plain_list(size: int) -> None:
    chance = random.Random(size)
    window = CountWindow(size)
    calls: deque[int] = deque(maxlen=size)
    for _ in range(3000):
        room = window.room(0)
        healthy = min(chance.choice([0, 1, 5, 50]), room)
        window.add_healthy(healthy)
        calls.extend([0] * healthy)
        kind = chance.choice([0, 0, 0, FAILED, SLOW, FAILED | SLOW])
        window.record(kind, 0.0)
        calls.append(kind)
        assert window.calls == len(calls)
        assert window.failed == sum(each & FAILED for each in calls)
        assert window.slow == sum(each >> 1 for each in calls)
        oldest = next((index for index, each in enumerate(calls) if each), None)
        expected = sys.maxsize if oldest is None else size - len(calls) + oldest
        assert window.room(0) == expected
        rebuilt = CountWindow(size)
        rebuilt.load(window.dump(0.0), 0.0)
        assert rebuilt.dump(0.0) == window.dump(0.0)


def test_healthy_calls_beyond_the_room_still_make_room_for_themselves() -> None:
    window = CountWindow(4)
    window.record(FAILED, 0.0)
    assert window.room(0) == 3
    window.add_healthy(3)
    assert (window.calls, window.failed) == (4, 1)
    window.add_healthy(2)
    assert (window.calls, window.failed) == (4, 0)


def test_a_window_has_no_room_below_the_minimum_while_not_all_is_well() -> None:
    for window in (CountWindow(10), TimeWindow(10.0, 0.0)):
        assert window.room(5) == sys.maxsize
        for _ in range(4):
            window.record(SLOW, 0.0)
        assert window.room(5) == 0
        window.record(0, 0.0)
        assert window.room(5) > 0


def test_a_smaller_count_window_keeps_the_latest() -> None:
    window = CountWindow(3)
    window.load([Bucket(5, 5, 0), Bucket(2, 0, 2)], 0.0)
    assert window.dump(0.0) == (Bucket(1, 1, 0), Bucket(2, 0, 2))


def test_a_time_window_forgets_in_twentieths() -> None:
    window = TimeWindow(20.0, 100.5)
    assert window.until == 101.0
    window.record(FAILED, 100.9)
    window.record(FAILED | SLOW, 101.0)
    window.add_healthy(3)
    assert (window.calls, window.failed, window.slow, window.until) == (5, 2, 1, 102.0)
    window.drop_old(119.999)
    assert window.calls == 5
    window.drop_old(120.0)
    assert (window.calls, window.failed, window.slow) == (4, 1, 1)
    window.drop_old(121.0)
    assert (window.calls, window.failed, window.slow) == (0, 0, 0)
    window.record(0, 1e9)
    assert window.calls == 1
    assert window.until == 1e9 + 1


def test_a_time_window_takes_a_time_just_past_for_now() -> None:
    window = TimeWindow(20.0, 100.0)
    window.record(0, 110.0)
    window.record(FAILED, 109.0)
    assert window.dump(110.0) == (Bucket(2, 1, 0, 0.0),)


def test_a_time_window_of_another_length_keeps_what_is_not_too_old() -> None:
    window = TimeWindow(20.0, 100.0)
    for now in (100.0, 106.0, 110.0):
        window.record(FAILED, now)
    content = window.dump(110.0)
    assert content == (Bucket(1, 1, 0, 10.0), Bucket(1, 1, 0, 4.0), Bucket(1, 1, 0, 0.0))
    shorter = TimeWindow(5.0, 110.0)
    shorter.load(content, 110.0)
    assert shorter.dump(110.0) == content[1:]
    longer = TimeWindow(40.0, 110.0)
    longer.load(content, 110.0)
    assert (longer.calls, longer.failed) == (3, 3)


def test_without_a_window_nothing_is_kept() -> None:
    window = make_window(BreakerSettings(), 0.0)
    assert isinstance(window, NoWindow)
    window.record(FAILED, 0.0)
    window.add_healthy(3)
    window.drop_old(0.0)
    window.load([Bucket(1, 1, 1)], 0.0)
    assert window.dump(0.0) == ()
    assert (window.calls, window.failed, window.slow) == (0, 0, 0)
    assert window.room(1) == sys.maxsize
    assert window.until == math.inf


def test_settings_choose_the_window() -> None:
    assert isinstance(make_window(BreakerSettings(window_calls=10), 0.0), CountWindow)
    assert isinstance(make_window(BreakerSettings(window_seconds=10), 0.0), TimeWindow)


def test_healthy_calls_are_exact_in_every_figure_though_they_are_counted_in_bulk(
    clock: FakeClock,
) -> None:
    breaker = breaker_with(clock, window_calls=100, failure_rate_threshold=0.5)
    guarded = breaker(lambda: None)
    for calls in range(1, 301):
        guarded()
        snapshot = breaker.snapshot()
        assert snapshot.counters.succeeded == calls
        assert snapshot.calls == min(calls, 100)
    for _ in range(1000):
        guarded()
    assert breaker.snapshot().counters.succeeded == 1300


def test_a_success_that_brings_the_minimum_may_open_also_when_threads_have_raced(
    clock: FakeClock,
) -> None:
    breaker = breaker_with(clock, window_calls=4, minimum_calls=2, failure_rate_threshold=0.5)
    breaker.acquire().failure()
    # A thread saw an empty window, and noted its success after the failure of another.
    breaker._healthy.append(breaker._generation)
    assert breaker.look().state is CircuitState.OPEN


def test_a_note_from_an_earlier_generation_is_late(clock: FakeClock) -> None:
    breaker = breaker_with(clock)
    breaker._healthy.append(breaker._generation)
    breaker._healthy.append(breaker._generation - 1)
    counters = breaker.snapshot().counters
    assert (counters.succeeded, counters.late) == (1, 1)


def test_a_time_window_keeps_whole_buckets_to_their_last_moment() -> None:
    window = TimeWindow(40.0, 100.5)
    assert window.until == 102.0
    for kind in (FAILED, FAILED, SLOW, SLOW | FAILED, 0):
        window.record(kind, 101.0)
    assert window.dump(101.0) == (Bucket(5, 3, 2, 0.0),)
    assert window.dump(139.9) == (Bucket(5, 3, 2, 38.0),)
    assert window.until == 102.0, "dumping changes nothing"
    window.drop_old(139.9)
    assert window.dump(139.9) == (Bucket(5, 3, 2, 38.0),)
    assert window.until == 140.0
    window.drop_old(140.0)
    assert (window.calls, window.failed, window.slow) == (0, 0, 0)


def test_a_time_window_loads_buckets_that_fall_together() -> None:
    content = [
        Bucket(3, 1, 2, 4.0),
        Bucket(2, 2, 1, 3.0),
        Bucket(1, 0, 1, 0.0),
        Bucket(9, 9, 9, 40.0),
    ]
    window = TimeWindow(40.0, 100.0)
    window.load(content, 100.0)
    # Of 4 s and 3 s of age, both are two buckets of 2 s; 40 s are too old.
    assert window.dump(100.0) == (Bucket(5, 3, 3, 4.0), Bucket(1, 0, 1, 0.0))
    assert (window.calls, window.failed, window.slow) == (6, 3, 4)
    window.drop_old(140.0)
    assert (window.calls, window.failed, window.slow) == (0, 0, 0)


@pytest.mark.parametrize("tenths", range(-25, 45))
def test_the_totals_of_a_time_window_are_what_dropping_leaves(tenths: int) -> None:
    now = tenths * 0.1  # at the edges of buckets, where divisions round
    window = TimeWindow(2.0, -1.95)
    for each in range(-19, 21):
        window.record(FAILED, each * 0.1 + 0.05)
    shown = window.totals(now)
    window.drop_old(now)
    assert shown == (window.calls, window.failed, window.slow)


def test_a_time_window_works_before_time_zero() -> None:
    window = TimeWindow(20.0, -1.5)
    assert window.until == -1.0
    window.record(FAILED, -0.5)
    assert window.until == 0.0
    assert window.dump(-0.5) == (Bucket(1, 1, 0, 0.0),)
    assert window.dump(0.5) == (Bucket(1, 1, 0, 1.0),)


def test_a_hint_that_comes_with_a_success_is_no_hint(clock: FakeClock) -> None:
    breaker = breaker_with(clock, window_calls=4, minimum_calls=2, failure_rate_threshold=0.5)
    breaker.acquire().failure()
    breaker.acquire().settle(Outcome.SUCCESS, retry_after=3.0)
    assert breaker.look().retry_after == 30.0
