"""Figures have how long calls took: merged to few buckets, cumulative, and nothing is lost."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import CallDurations, CircuitBreaker
from fusewire.breaker._histogram import BOUNDS, EXPORT_BOUNDS

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def test_durations_are_there_once_they_are_measured(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", failure_threshold=9, clock=clock)
    breaker(clock.advance)(1)
    assert breaker.figures().durations is None
    breaker.measure_durations()
    none = breaker.figures().durations
    assert none is not None
    assert (none.answered.calls, none.answered.seconds) == (0, 0)
    guarded = breaker(clock.advance)
    for seconds in (0.002, 0.25, 0.25, 60):
        clock.now = 0.0
        guarded(seconds)

    @breaker
    def fail() -> None:
        clock.advance(3)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    durations = breaker.figures().durations
    assert durations == CallDurations(
        answered=dataclasses.replace(
            none.answered, counts=(0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1), seconds=60.502
        ),
        failed=dataclasses.replace(
            none.failed, counts=(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0), seconds=3.0
        ),
    )
    assert durations.answered.bounds == EXPORT_BOUNDS
    assert durations.answered.cumulative == (0, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 4)


def test_calls_of_several_fine_buckets_are_one_exported_bucket(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", clock=clock)
    breaker.measure_durations()
    for seconds in (0.3, 0.4, 0.5):  # three of the fine buckets
        clock.now = 0.0
        breaker(clock.advance)(seconds)
    durations = breaker.figures().durations
    assert durations is not None
    assert sum(durations.answered.counts) == 3
    assert max(durations.answered.counts) == 3


def test_a_call_that_is_settled_twice_is_measured_once(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", clock=clock)
    breaker.measure_durations()
    for _ in range(3):
        permit = breaker.acquire()
        permit.success()
        permit.success()
    durations = breaker.figures().durations
    assert durations is not None
    assert durations.answered.calls == 3


def test_the_buckets_are_merged_and_few() -> None:
    assert len(EXPORT_BOUNDS) + 1 == 14
    assert EXPORT_BOUNDS[0] == 0.00108
    assert EXPORT_BOUNDS[-1] == 10.9
    for bound in EXPORT_BOUNDS:
        assert min(abs(bound / fine - 1) for fine in BOUNDS) < 0.005


@pytest.mark.parametrize("bound", range(13))
def test_each_bucket_holds_what_is_at_most_its_bound(clock: FakeClock, bound: int) -> None:
    breaker = CircuitBreaker("payments", clock=clock)
    breaker.measure_durations()
    fine = min(BOUNDS, key=lambda fine: abs(fine - EXPORT_BOUNDS[bound]))
    assert breaker.durations is not None
    breaker.durations.record(fine, method="/shop.Payments/Charge")
    breaker.durations.record(fine * 1.001, method="/shop.Payments/Refund")
    durations = breaker.figures().durations
    assert durations is not None
    assert durations.answered.counts[bound : bound + 2] == (1, 1)


def test_the_seconds_of_all_methods_are_added(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", clock=clock)
    breaker.measure_durations()
    assert breaker.durations is not None
    for seconds, method in ((1.0, "/shop.Payments/Charge"), (0.5, "/shop.Payments/Refund")):
        breaker.durations.record(seconds, method=method)
        breaker.durations.record(2 * seconds, method=method, failed=True)
    durations = breaker.figures().durations
    assert durations is not None
    assert (durations.answered.seconds, durations.failed.seconds) == (1.5, 3.0)


def test_durations_go_on_over_a_restart_and_never_fall(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", clock=clock)
    breaker.measure_durations()
    for seconds in (0.00001, 0.1, 1e9):
        breaker(clock.advance)(seconds)
    other = CircuitBreaker("payments", clock=clock)
    other.restore(breaker.snapshot())
    before, after = breaker.figures().durations, other.figures().durations
    assert before is not None
    assert after == dataclasses.replace(before, restored=before)
    other(clock.advance)(0.1)
    now = other.figures().durations
    assert now is not None
    assert now.answered.calls == before.answered.calls + 1
    assert now.restored == before


def test_durations_can_be_left_out(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", clock=clock)
    breaker.measure_durations()
    breaker.acquire().success()
    assert breaker.figures(durations=False) == dataclasses.replace(
        breaker.figures(), durations=None
    )
