"""What was added to snapshots: former releases read them, and theirs are read."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerSettings,
    CircuitBreaker,
    CircuitState,
    Histogram,
    MethodDurations,
    Snapshot,
    Transition,
)
from fusewire.breaker._transitions import AUTOMATIC
from tests.support.circuits import interrupt, open_circuit, restarted

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

SETTINGS = BreakerSettings(
    failure_threshold=2,
    recovery_timeout=10,
    half_open_max_calls=2,
    window_calls=10,
    slow_call_duration=2,
)


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker("payments", settings=SETTINGS, clock=clock)


def measured(clock: FakeClock) -> CircuitBreaker:
    """Make a breaker with 20 calls of 0.5 s, a failure and calls by hand of two methods."""
    breaker = CircuitBreaker("payments", settings=SETTINGS, clock=clock)
    breaker.measure_durations()
    guarded = breaker(clock.advance)
    for _ in range(20):
        guarded(0.5)
    breaker.acquire().failure()
    assert breaker.durations is not None
    breaker.durations.record(0.25, method="/shop.Payments/Charge")
    breaker.durations.record(1e9, method="/shop.Payments/Refund", live=False)
    return breaker


def test_durations_go_on_over_a_restart(clock: FakeClock) -> None:
    breaker = measured(clock)
    breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN
    other = restarted(breaker, clock)
    assert other.snapshot() == breaker.snapshot()
    before, after = breaker.durations, other.durations
    assert before is not None
    assert after is not None
    assert after.methods() == ("", "/shop.Payments/Charge", "/shop.Payments/Refund")
    for method in after.methods():
        assert after.baseline(method) == before.baseline(method)
        assert after.histogram(method) == before.histogram(method)
        assert after.histogram(method, failed=True) == before.histogram(method, failed=True)
    assert after.slow_share() is None


def test_calls_after_a_restart_are_added_to_those_before_it(clock: FakeClock) -> None:
    other = restarted(measured(clock), clock)
    other(clock.advance)(0.5)
    assert other.durations is not None
    baseline = other.durations.baseline()
    assert baseline is not None
    assert baseline.calls == 22
    other.force_open()  # which drops the last minute, and not what is older
    after = other.durations.baseline()
    assert after is not None
    assert after.calls == 21


def test_calls_recorded_by_hand_after_a_restart_are_added_too(clock: FakeClock) -> None:
    other = restarted(measured(clock), clock)
    assert other.durations is not None
    before = other.durations.baseline("/shop.Payments/Charge")
    other.durations.record(0.25, method="/shop.Payments/Charge")
    after = other.durations.baseline("/shop.Payments/Charge")
    assert before is not None
    assert after is not None
    assert (before.calls, after.calls) == (1, 2)


def test_durations_are_restored_by_code_that_interrupts_a_change(clock: FakeClock) -> None:
    snapshot = measured(clock).snapshot()
    other = CircuitBreaker("payments", settings=SETTINGS, clock=clock)
    interrupt(other, lambda: other.restore(snapshot))
    assert other.durations is not None
    assert other.durations.baseline() is not None


def test_a_breaker_whose_calls_are_measured_keeps_the_same_durations(clock: FakeClock) -> None:
    breaker = measured(clock)
    snapshot, durations = breaker.snapshot(), breaker.durations
    breaker(clock.advance)(5)
    breaker.restore(snapshot)
    assert breaker.durations is durations
    assert durations is not None
    assert durations.slow_share() is None
    assert breaker.snapshot().durations == snapshot.durations


def test_the_form_is_the_former_one_while_nothing_is_measured(breaker: CircuitBreaker) -> None:
    breaker.measure_durations()
    fields = json.loads(breaker.snapshot().to_json(), object_pairs_hook=list)
    assert [name for name, _ in fields] == FORMER_FIELDS


def test_former_releases_read_snapshots_with_what_was_added(clock: FakeClock) -> None:
    breaker = measured(clock)
    breaker.acquire().failure()
    clock.advance(1)
    text = breaker.snapshot().to_json()
    assert text.startswith('{"format": {"durations": [')
    assert '], "open_seconds": 1.0, "transitions": [{"old": "closed", "new": "open",' in text
    assert list(json.loads(text)) == FORMER_FIELDS
    assert json.loads(text)["format"] == 1
    assert list(json.loads(text)["counters"]) == FORMER_COUNTERS


FORMER_COUNTERS = [
    "succeeded",
    "failed",
    "ignored",
    "slow",
    "rejected",
    "late",
    "expired",
    "opened",
]


FORMER_FIELDS = [
    "format",
    "name",
    "state",
    "retry_after",
    "reason",
    "consecutive_failures",
    "reopenings",
    "calls",
    "failed",
    "slow",
    "probes_running",
    "probes_succeeded",
    "counters",
    "window",
]
"""What the first releases read, which refuse all others."""


def test_transitions_and_open_time_go_on_over_a_restart(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.disable()
    breaker.reset()
    open_circuit(breaker)
    clock.advance(4)
    other = restarted(breaker, clock)
    assert other.snapshot().counters == breaker.snapshot().counters
    clock.advance(16)
    other.acquire()
    counters = other.snapshot().counters
    assert counters.open_seconds == 10
    assert counters.transitions == (
        Transition(CircuitState.CLOSED, CircuitState.OPEN, 1),
        Transition(CircuitState.OPEN, CircuitState.HALF_OPEN, 1),
        *AUTOMATIC[2:],
        Transition(CircuitState.CLOSED, CircuitState.DISABLED, 1),
        Transition(CircuitState.DISABLED, CircuitState.CLOSED, 1),
    )


def test_without_what_was_added_the_totals_of_states_begin_again(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    open_circuit(breaker)
    clock.advance(4)
    former = json.dumps(json.loads(breaker.snapshot().to_json()))
    other = CircuitBreaker("payments", settings=SETTINGS, clock=clock)
    other.restore(Snapshot.from_json(former))
    assert other.snapshot().counters.transitions == AUTOMATIC
    clock.advance(16)
    assert other.snapshot().counters.open_seconds == 6


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"open_seconds": 4.0', '"open_seconds": -4.0'),
        ('"open_seconds": 4.0', '"open_seconds": "4"'),
        ('"count": 1', '"count": 1.5'),
        ('"count": 1', '"count": -1'),
        ('"count": 1', '"times": 1'),
        ('"old": "closed"', '"old": "ajar"'),
        ('"new": "open"', '"new": null'),
        ('"transitions": [', '"transitions": [7, '),
    ],
)
def test_totals_of_states_that_cannot_be_right_are_refused(
    breaker: CircuitBreaker, clock: FakeClock, right: str, wrong: str
) -> None:
    open_circuit(breaker)
    clock.advance(4)
    text = breaker.snapshot().to_json()
    assert right in text
    with pytest.raises(ValueError, match="not a snapshot of a circuit breaker"):
        Snapshot.from_json(text.replace(right, wrong, 1))


def test_snapshots_of_former_releases_are_read(clock: FakeClock) -> None:
    breaker = measured(clock)
    known = breaker.snapshot().durations
    former = json.dumps(json.loads(breaker.snapshot().to_json()))
    assert Snapshot.from_json(former) == dataclasses.replace(breaker.snapshot(), durations=())
    breaker.restore(Snapshot.from_json(former))
    assert breaker.snapshot().durations == known


def test_what_a_later_release_adds_is_not_looked_at(clock: FakeClock) -> None:
    text = measured(clock).snapshot().to_json()
    later = text.replace('{"durations"', '{"weather": "fine", "durations"', 1)
    assert Snapshot.from_json(later) == Snapshot.from_json(text)


@pytest.mark.parametrize(
    ("right", "wrong", "why"),
    [
        ('"method": ""', '"method": 7', "a method of its durations must be a string, got 7"),
        ('"method": "", ', "", "'method'"),
        ('"seconds": 10.0', '"seconds": NaN', "its seconds must be a finite number .*, got nan"),
        ('"seconds": 10.0', '"seconds": "10"', "its seconds must be a finite number .*, got '10'"),
        (", 20]]", ", 20.5]]", r"its count of durations must be .*, got 20\.5"),
        (", 20]]", ", -1]]", "its count of durations must be .*, got -1"),
        (", 20]]", ", 20, 1]]", "too many values"),
        (", 20]]", "]]", "not enough values"),
        ("[[", '[["0.5", 1], [', r"its bound of durations must be .*, got '0\.5'"),
    ],
)
def test_durations_that_cannot_be_right_are_refused(
    clock: FakeClock, right: str, wrong: str, why: str
) -> None:
    text = measured(clock).snapshot().to_json()
    assert right in text
    with pytest.raises(ValueError, match=f"not a snapshot of a circuit breaker: {why}"):
        Snapshot.from_json(text.replace(right, wrong, 1))


@pytest.mark.parametrize("counts", [(1, 2), (1, 2, 3, 4)])
def test_a_histogram_that_lacks_a_count_or_a_bound_is_not_written(
    breaker: CircuitBreaker, counts: tuple[int, ...]
) -> None:
    wrong = Histogram(bounds=(0.1, 0.2), counts=counts, seconds=1.0)
    durations = MethodDurations(method="", answered=wrong, failed=wrong, baseline=wrong)
    snapshot = dataclasses.replace(breaker.snapshot(), durations=(durations,))
    with pytest.raises(ValueError, match=r"shorter|longer"):
        snapshot.to_json()
