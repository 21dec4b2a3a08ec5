"""A call of a decorated function leaves no more than its seconds, and is counted as any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import CircuitBreaker, Durations
from fusewire.operation import operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.testing import FakeClock


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    clock.now = 3000.0  # a half minute begins
    breaker = CircuitBreaker("payments", 1, 10.0, 1, clock=clock)
    breaker.measure_durations()
    return breaker


def durations_of(breaker: CircuitBreaker) -> Durations:
    assert breaker.durations is not None
    return breaker.durations


def generations(breaker: CircuitBreaker) -> list[tuple[float, int, float]]:
    """Return, of each half minute, when it began, its calls and when the last of them ended."""
    durations = durations_of(breaker)
    durations._count()
    known = durations._methods[""].generations._known
    return [(each.number * 30, each.counts.calls, each.ended) for each in known]


def quick(breaker: CircuitBreaker) -> int:
    return sum(type(note) is float for note in durations_of(breaker).notes)


def by_decorator(breaker: CircuitBreaker, clock: FakeClock, seconds: float) -> None:
    breaker(clock.advance)(seconds)


def by_permit(breaker: CircuitBreaker, clock: FakeClock, seconds: float) -> None:
    with breaker.acquire():
        clock.advance(seconds)


def by_proved_function(breaker: CircuitBreaker, clock: FakeClock, seconds: float) -> None:
    breaker._unproven = 0  # healthy calls offer no loans
    breaker._refresh()
    breaker(clock.advance)(seconds)


def by_coroutine(breaker: CircuitBreaker, clock: FakeClock, seconds: float) -> None:
    async def work() -> None:
        clock.advance(seconds)

    with pytest.raises(StopIteration):
        breaker(work)().send(None)


def by_proved_coroutine(breaker: CircuitBreaker, clock: FakeClock, seconds: float) -> None:
    breaker._unproven = 0
    breaker._refresh()
    by_coroutine(breaker, clock, seconds)


WAYS = [by_decorator, by_permit, by_proved_function, by_coroutine, by_proved_coroutine]


@pytest.mark.parametrize("way", WAYS)
def test_each_call_is_in_the_half_minute_in_which_it_ended(
    breaker: CircuitBreaker, clock: FakeClock, way: Callable[..., None]
) -> None:
    for _ in range(3):
        way(breaker, clock, 1.0)
    assert quick(breaker) == 2, "the first says which half minute it is"
    clock.advance(26)
    way(breaker, clock, 0.5)
    assert quick(breaker) == 3
    way(breaker, clock, 1.0)
    way(breaker, clock, 1.0)
    assert quick(breaker) == 4
    assert generations(breaker) == [(3000, 4, pytest.approx(3030)), (3030, 2, clock.now)]
    assert generations(breaker)[0][2] < 3030
    histogram = durations_of(breaker).histogram()
    assert (histogram.calls, histogram.seconds) == (6, 5.5)


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_ends_as_a_half_minute_begins_is_in_that_one(
    breaker: CircuitBreaker, clock: FakeClock, way: Callable[..., None]
) -> None:
    way(breaker, clock, 1.0)
    clock.advance(28)
    way(breaker, clock, 1.0)
    assert clock.now == 3030
    assert generations(breaker) == [(3000, 1, 3001), (3030, 1, 3030)]


@pytest.mark.parametrize("way", WAYS)
def test_calls_of_an_outage_are_in_no_baseline(
    breaker: CircuitBreaker, clock: FakeClock, way: Callable[..., None]
) -> None:
    way(breaker, clock, 1.0)
    breaker.metrics_only()
    for _ in range(3):
        way(breaker, clock, 1.0)
    assert quick(breaker) == 0
    breaker.automatic()
    for _ in range(3):
        way(breaker, clock, 1.0)
    assert quick(breaker) == 2
    assert sum(calls for _, calls, _ in generations(breaker)) == 4
    assert durations_of(breaker).histogram().calls == 7


@pytest.mark.parametrize("way", WAYS)
def test_calls_of_a_replay_are_no_live_ones(
    breaker: CircuitBreaker, clock: FakeClock, way: Callable[..., None]
) -> None:
    way(breaker, clock, 1.0)
    with operation("o-1", replay=True) as work:
        way(breaker, clock, 2.0)
    with operation("o-2") as live:
        way(breaker, clock, 3.0)
    assert quick(breaker) == 0
    assert [timed.seconds for timed in work.timed] == [2.0]
    assert [timed.seconds for timed in live.timed] == [3.0]
    assert sum(calls for _, calls, _ in generations(breaker)) == 2
    assert durations_of(breaker).histogram().calls == 3


def test_the_last_of_them_ended_at_the_latest_when_they_were_counted(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    for _ in range(3):
        by_decorator(breaker, clock, 1.0)
    clock.advance(7)
    assert generations(breaker) == [(3000, 3, 3010)]
    by_decorator(breaker, clock, 1.0)
    clock.advance(1000)
    assert generations(breaker) == [(3000, 4, pytest.approx(3030))]


def test_they_are_the_latest_calls_too(breaker: CircuitBreaker, clock: FakeClock) -> None:
    for _ in range(30):
        by_decorator(breaker, clock, 0.01)
    for _ in range(10):
        by_decorator(breaker, clock, 1.0)
    assert durations_of(breaker).slow_share() == 0.25
    assert durations_of(breaker).slow_share("") == 0.25


def test_they_do_not_pile_up(breaker: CircuitBreaker, clock: FakeClock) -> None:
    most = 0
    guarded = breaker(clock.advance)
    for _ in range(2000):
        guarded(0.001)
        most = max(most, len(durations_of(breaker).notes))
    assert 256 <= most < 400
    assert durations_of(breaker).histogram().calls == 2000


def test_permits_do_not_pile_up_either(breaker: CircuitBreaker) -> None:
    for _ in range(2000):
        breaker.acquire().success()
        assert len(durations_of(breaker).notes) < 256


def test_a_clock_may_count_whole_seconds() -> None:
    now = 0

    def clock() -> int:
        nonlocal now
        now += 1
        return now

    breaker = CircuitBreaker("payments", clock=clock)
    breaker.measure_durations()
    guarded = breaker(int)
    for _ in range(5):
        guarded()
    assert any(type(note) is int for note in durations_of(breaker).notes)
    assert durations_of(breaker).histogram().seconds == 5


def test_a_failure_among_them_is_counted_apart(breaker: CircuitBreaker, clock: FakeClock) -> None:
    by_decorator(breaker, clock, 1.0)
    by_decorator(breaker, clock, 1.0)
    durations_of(breaker).record(5.0, failed=True)
    by_decorator(breaker, clock, 2.0)
    durations_of(breaker).record(3.0, method="/shop.Payments/Charge")
    by_decorator(breaker, clock, 4.0)
    assert durations_of(breaker).histogram("").seconds == 11
    assert durations_of(breaker).histogram(failed=True).seconds == 5
    assert durations_of(breaker).histogram("/shop.Payments/Charge").calls == 1
    assert [calls for _, calls, _ in generations(breaker)] == [4]
