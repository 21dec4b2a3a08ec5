"""How often replays may start."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from fusewire.parking._rate_limiter import RateLimiter

STEPS = st.lists(st.fractions(min_value=0, max_value=2), max_size=60)
RATES = st.fractions(min_value=Fraction(1, 20), max_value=50)


def starts(rate: Fraction, steps: list[Fraction]) -> list[Fraction]:
    """Ask for a start after each step of the clock; return the times at which it was given."""
    now = Fraction(0)
    pace = RateLimiter(rate, lambda: now)  # type: ignore[arg-type,return-value] # exact, where floats round
    given_at = []
    for step in steps:
        now += step
        if pace.start() == 0:
            given_at.append(now)
    return given_at


@given(RATES, STEPS)
def test_no_time_sees_more_starts_than_the_rate_and_one(
    rate: Fraction, steps: list[Fraction]
) -> None:
    times = starts(rate, steps)
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= rate * (times[last] - begin) + 1


@given(RATES, STEPS)
def test_who_waits_as_long_as_told_may_start(rate: Fraction, steps: list[Fraction]) -> None:
    now = Fraction(0)
    pace = RateLimiter(rate, lambda: now)  # type: ignore[arg-type,return-value]
    for step in steps:
        now += step
        wait = pace.start()
        if wait:
            assert wait <= 1 / rate
            now += wait  # type: ignore[assignment]
            assert pace.start() == 0


def test_without_a_rate_everybody_may_start() -> None:
    pace = RateLimiter(None, lambda: 0.0)
    assert [pace.start() for _ in range(5)] == [0.0] * 5


def test_a_quiet_time_saves_up_nothing() -> None:
    now = 0.0
    pace = RateLimiter(10, lambda: now)
    assert pace.start() == 0
    now = 100.0
    assert [pace.start() == 0 for _ in range(3)] == [True, False, False]


def test_another_rate_counts_from_the_last_start() -> None:
    now = 0.0
    pace = RateLimiter(0.01, lambda: now)
    assert pace.start() == 0
    now = 1.0
    assert pace.start() == 99.0
    pace.limit(0.5)
    assert pace.start() == 1.0
    pace.limit(None)
    assert pace.start() == 0
