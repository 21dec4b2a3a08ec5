"""What an open circuit does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    Admission,
    Cause,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Event,
    Outcome,
    Reason,
    StateChanged,
)
from fusewire.errors import SettingsError
from tests.support.circuits import half_open_circuit, locked, open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def test_it_rejects_and_says_when_to_come_back(breaker: CircuitBreaker, clock: FakeClock) -> None:
    open_circuit(breaker)
    clock.advance(4)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert caught.value.name == "payments"
    assert caught.value.state == "open"
    assert caught.value.retry_after == 6.0
    assert caught.value.reason == "2 failures in a row, threshold 2"


def test_a_look_shows_the_same_and_changes_nothing(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    open_circuit(breaker)
    clock.advance(9)
    assert breaker.look() == Admission(admitted=False, state=CircuitState.OPEN, retry_after=1.0)
    assert not breaker.can_execute()
    clock.advance(1)
    for _ in range(10):
        assert breaker.look() == Admission(
            admitted=True, state=CircuitState.HALF_OPEN, retry_after=0.0
        )
    assert breaker.can_execute()
    assert breaker.acquire().probe


def test_rejections_do_not_lengthen_the_open_time(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    open_circuit(breaker)
    for _ in range(9):
        clock.advance(1)
        with pytest.raises(CircuitOpenError):
            breaker.acquire()
    clock.advance(1)
    assert breaker.acquire().probe


def test_a_hint_of_the_dependency_sets_the_open_time(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.acquire().failure(retry_after=99)
    breaker.acquire().failure(retry_after=3)
    assert breaker.look().retry_after == 3.0
    clock.advance(3)
    assert breaker.acquire().probe


@pytest.mark.parametrize("hint", [None, 0.0, -1.0, math.inf, math.nan])
def test_a_hint_that_makes_no_sense_is_no_hint(breaker: CircuitBreaker, hint: float | None) -> None:
    breaker.acquire().failure()
    breaker.acquire().failure(retry_after=hint)
    assert breaker.look().retry_after == 10.0


def test_settling_with_an_outcome_takes_a_hint_too(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()
    breaker.acquire().settle(Outcome.FAILURE, retry_after=3)
    assert breaker.look().retry_after == 3.0


def test_a_hint_may_be_short(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()
    breaker.acquire().failure(retry_after=0.5)
    assert breaker.look().retry_after == 0.5


def test_a_rejection_does_not_wait_for_the_lock(breaker: CircuitBreaker) -> None:
    open_circuit(breaker)
    with locked(breaker), pytest.raises(CircuitOpenError):
        breaker.acquire()
    assert breaker.snapshot().counters.rejected == 1


def test_it_can_be_held_open_past_its_time(breaker: CircuitBreaker, clock: FakeClock) -> None:
    open_circuit(breaker)
    for _ in range(5):
        clock.advance(8)
        breaker.hold_open(9)
        assert breaker.look() == Admission(admitted=False, state=CircuitState.OPEN, retry_after=9.0)
        with pytest.raises(CircuitOpenError):
            breaker.acquire()
    clock.advance(9)
    assert breaker.acquire().probe


def test_holding_it_open_makes_no_open_time_shorter(breaker: CircuitBreaker) -> None:
    open_circuit(breaker)
    breaker.hold_open(9)
    assert breaker.look().retry_after == 10.0


def test_it_is_held_open_also_when_its_time_was_over_and_no_call_had_come(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    open_circuit(breaker)
    clock.advance(10)
    breaker.hold_open(1)
    assert breaker.look() == Admission(admitted=False, state=CircuitState.OPEN, retry_after=1.0)


def test_no_maximum_keeps_it_from_being_held_open(breaker: CircuitBreaker) -> None:
    open_circuit(breaker)
    breaker.hold_open(5000)
    assert breaker.look().retry_after == 5000.0


def test_its_open_time_can_be_ended(breaker: CircuitBreaker) -> None:
    open_circuit(breaker)
    heard: list[Event] = []
    breaker.add_listener(heard.append)
    breaker.half_open()
    assert heard == [
        StateChanged("payments", CircuitState.OPEN, CircuitState.HALF_OPEN, Reason(Cause.BY_HAND))
    ]
    for _ in range(2):
        permit = breaker.acquire()
        assert permit.probe
        permit.success()
    assert breaker.state is CircuitState.CLOSED


def test_holding_and_ending_keep_the_figures(breaker: CircuitBreaker) -> None:
    open_circuit(breaker)
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            breaker.acquire()
        breaker.hold_open(60)
    breaker.half_open()
    breaker.acquire().failure()
    snapshot = breaker.snapshot()
    counters = snapshot.counters
    assert (counters.failed, counters.rejected, counters.opened) == (3, 3, 2)
    assert snapshot.reopenings == 1
    assert snapshot.retry_after == 10.0


@pytest.mark.parametrize("how", ["reset", "force_open", "disable", "metrics_only"])
def test_only_an_open_circuit_is_held_open_or_half_opened(
    breaker: CircuitBreaker, how: str
) -> None:
    open_circuit(breaker)
    getattr(breaker, how)()
    before = breaker.snapshot()
    breaker.hold_open(60)
    breaker.half_open()
    assert breaker.snapshot() == before


def test_probes_decide_about_a_half_open_circuit(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open_circuit(breaker, clock)
    probe = breaker.acquire()
    breaker.hold_open(60)
    breaker.half_open()
    probe.success()
    breaker.acquire().success()
    assert breaker.state is CircuitState.CLOSED


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, "5s", None, True])
def test_a_hold_that_makes_no_sense_is_refused(breaker: CircuitBreaker, seconds: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        breaker.hold_open(seconds)
    expected = f"seconds must be a finite number of seconds above 0, got {seconds!r}"
    assert str(caught.value) == expected
