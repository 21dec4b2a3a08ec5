"""How long a circuit stays open, and how it takes up its load again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    Admission,
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
)
from fusewire.breaker._recovery import RampUp

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def open_times(breaker: CircuitBreaker, clock: FakeClock, rounds: int) -> list[float]:
    """Let `rounds` rounds of probes fail and return how long each open time was."""
    breaker.acquire().failure()
    times = []
    for _ in range(rounds):
        times.append(breaker.look().retry_after)
        clock.advance(times[-1])
        breaker.acquire().failure()
    return times


def test_the_open_time_grows_to_its_maximum_and_starts_again_after_closing(
    clock: FakeClock,
) -> None:
    settings = BreakerSettings(
        failure_threshold=1,
        recovery_timeout=10,
        half_open_max_calls=1,
        recovery_timeout_growth=2,
        recovery_timeout_max=35,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    assert open_times(breaker, clock, 4) == [10, 20, 35, 35]
    clock.advance(35)
    breaker.acquire().success()
    assert breaker.state is CircuitState.CLOSED
    breaker.acquire().failure()
    assert breaker.look().retry_after == 10


def test_growth_never_overflows(clock: FakeClock) -> None:
    settings = BreakerSettings(failure_threshold=1, recovery_timeout_growth=1e300)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    assert open_times(breaker, clock, 4) == [30, 300, 300, 300]


def test_the_maximum_is_five_minutes_or_the_recovery_timeout_if_that_is_longer() -> None:
    assert BreakerSettings().max_open_time == 300
    assert BreakerSettings(recovery_timeout=400).max_open_time == 400
    assert BreakerSettings(recovery_timeout_max=50).max_open_time == 50


def test_jitter_takes_off_a_share(clock: FakeClock) -> None:
    settings = BreakerSettings(
        failure_threshold=1, recovery_timeout=10, recovery_timeout_jitter=0.5
    )
    chances = iter([0.0, 0.5, 0.75])
    breaker = CircuitBreaker("payments", settings=settings, clock=clock, rng=lambda: next(chances))
    assert open_times(breaker, clock, 2) == [10, 7.5]
    assert breaker.look().retry_after == 6.25


def test_a_hint_stays_within_the_maximum_and_takes_no_jitter(clock: FakeClock) -> None:
    settings = BreakerSettings(
        failure_threshold=1, recovery_timeout=10, recovery_timeout_jitter=0.5
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock, rng=lambda: 0.5)
    breaker.acquire().failure(retry_after=100)
    assert breaker.look().retry_after == 100
    clock.advance(100)
    breaker.acquire().failure(retry_after=1e9)
    assert breaker.look().retry_after == 300


@pytest.fixture
def ramping(clock: FakeClock) -> CircuitBreaker:
    """A breaker that has just closed, and ramps up in 8 s."""
    settings = BreakerSettings(failure_threshold=2, half_open_max_calls=1, ramp_duration=8)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.acquire().failure()
    breaker.acquire().failure()
    clock.advance(30)
    breaker.acquire().success()
    assert breaker.state is CircuitState.CLOSED
    return breaker


def admitted(breaker: CircuitBreaker, calls: int) -> int:
    count = 0
    for _ in range(calls):
        try:
            breaker.acquire().success()
            count += 1
        except CircuitOpenError as error:
            assert error.state == "closed"  # noqa: PT017 - some calls pass and some do not
    return count


def test_the_first_call_after_closing_passes_and_the_next_waits(
    ramping: CircuitBreaker, clock: FakeClock
) -> None:
    ramping.acquire().success()
    with pytest.raises(CircuitOpenError, match="growing share") as caught:
        ramping.acquire()
    assert caught.value.retry_after == 8
    assert ramping.look() == Admission(admitted=False, state=CircuitState.CLOSED, retry_after=8.0)
    clock.advance(3)
    assert ramping.look().retry_after == 5.0


def test_the_share_of_admitted_calls_grows_to_all(
    ramping: CircuitBreaker, clock: FakeClock
) -> None:
    shares = []
    for _ in range(8):
        shares.append(admitted(ramping, 80))
        clock.advance(1)
    assert shares == [1, 10, 20, 30, 40, 50, 60, 70]
    assert admitted(ramping, 80) == 80
    assert ramping.snapshot().counters.rejected == 8 * 80 - 281


def test_a_look_during_the_ramp_shows_what_the_next_call_will_meet(
    ramping: CircuitBreaker, clock: FakeClock
) -> None:
    for _ in range(50):
        clock.advance(0.25)
        look = ramping.look()
        assert look.state is CircuitState.CLOSED
        assert (admitted(ramping, 1) == 1) == look.admitted
        assert look.retry_after >= 0


def test_who_waits_as_long_as_told_is_admitted(ramping: CircuitBreaker, clock: FakeClock) -> None:
    ramping.acquire().success()
    clock.advance(4)
    assert admitted(ramping, 1) == 0
    clock.advance(ramping.look().retry_after)
    assert admitted(ramping, 1) == 1


def test_failures_during_the_ramp_open_the_circuit_again(
    ramping: CircuitBreaker, clock: FakeClock
) -> None:
    clock.advance(7)
    for _ in range(2):
        ramping.acquire().failure()
    assert ramping.state is CircuitState.OPEN


def test_the_wait_reported_during_the_ramp_is_exact() -> None:
    ramp = RampUp(100.0, 8.0)
    assert ramp.take(100.0)
    assert ramp.wait(100.0) == 8.0
    assert not ramp.take(104.0)
    # Half a call is due already, and the other half will be when the share is a half: now.
    assert ramp.wait(103.5) == 0.5
    assert ramp.wait(104.0) == 0.0
    assert ramp.wait(105.0) == 0.0
    assert ramp.take(104.0)
    assert not ramp.take(106.0)
    assert ramp.wait(101.5) == 0.5
    assert not ramp.is_over(107.9)
    assert ramp.is_over(108.0)


def test_a_rejection_during_the_ramp_may_say_that_the_next_call_passes(
    ramping: CircuitBreaker, clock: FakeClock
) -> None:
    ramping.acquire().success()
    clock.advance(6)
    with pytest.raises(CircuitOpenError) as caught:
        ramping.acquire()
    assert caught.value.retry_after == 0.0
    assert ramping.acquire()
