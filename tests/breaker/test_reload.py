"""Settings are replaced while the circuit goes on (resilience4j 975 and 2181)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker import BreakerSettings, CircuitBreaker, CircuitState
from tests.support.circuits import half_open_circuit, open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def breaker_with(clock: FakeClock, settings: BreakerSettings) -> CircuitBreaker:
    return CircuitBreaker("payments", settings=settings, clock=clock)


def test_window_and_failures_in_a_row_are_kept(clock: FakeClock) -> None:
    breaker = breaker_with(clock, BreakerSettings(window_calls=10))
    breaker.acquire().success()
    for _ in range(3):
        breaker.acquire().failure()
    breaker.replace_settings(BreakerSettings(failure_threshold=4, window_calls=20))
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.failed, snapshot.consecutive_failures) == (4, 3, 3)
    breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN


def test_a_time_window_keeps_what_is_not_too_old_for_another_length(clock: FakeClock) -> None:
    breaker = breaker_with(clock, BreakerSettings(window_seconds=20))
    breaker.acquire().failure()
    clock.advance(10)
    breaker.acquire().failure()
    breaker.replace_settings(BreakerSettings(window_seconds=40))
    assert breaker.snapshot().failed == 2
    breaker.replace_settings(BreakerSettings(window_seconds=5))
    assert breaker.snapshot().failed == 1
    clock.advance(5)
    assert breaker.snapshot().failed == 0


def test_a_window_of_another_kind_begins_empty(clock: FakeClock) -> None:
    breaker = breaker_with(clock, BreakerSettings(window_calls=10))
    breaker.acquire().failure()
    breaker.replace_settings(BreakerSettings(window_seconds=10))
    assert breaker.snapshot().calls == 0
    breaker.acquire().failure()
    breaker.replace_settings(BreakerSettings())
    assert breaker.snapshot().calls == 0


def test_what_is_too_much_by_the_new_settings_opens_at_once(clock: FakeClock) -> None:
    breaker = breaker_with(clock, BreakerSettings(failure_threshold=5))
    for _ in range(3):
        breaker.acquire().failure()
    breaker.replace_settings(BreakerSettings(failure_threshold=3))
    assert breaker.state is CircuitState.OPEN


def test_an_open_time_that_runs_does_not_move(clock: FakeClock) -> None:
    breaker = breaker_with(clock, BreakerSettings(recovery_timeout=10))
    open_circuit(breaker)
    breaker.replace_settings(BreakerSettings(recovery_timeout=99))
    assert breaker.look().retry_after == 10


def test_probes_that_are_enough_by_the_new_settings_close_at_once(clock: FakeClock) -> None:
    breaker = breaker_with(clock, BreakerSettings(half_open_max_calls=3))
    half_open_circuit(breaker, clock)
    breaker.acquire().success()
    breaker.replace_settings(BreakerSettings(half_open_max_calls=1))
    assert breaker.state is CircuitState.CLOSED


def test_without_a_ramp_in_the_new_settings_all_calls_pass(clock: FakeClock) -> None:
    rules = BreakerSettings(failure_threshold=1, half_open_max_calls=1, ramp_duration=100)
    breaker = breaker_with(clock, rules)
    half_open_circuit(breaker, clock)
    breaker.acquire().success()
    breaker.acquire().success()
    assert not breaker.can_execute()
    breaker.replace_settings(BreakerSettings(ramp_duration=50))
    assert not breaker.can_execute()
    breaker.replace_settings(BreakerSettings())
    assert breaker.can_execute()


def test_calls_in_flight_are_judged_by_the_new_settings(clock: FakeClock) -> None:
    breaker = breaker_with(clock, BreakerSettings())

    def work() -> None:
        clock.advance(5)
        breaker.replace_settings(
            BreakerSettings(window_calls=1, minimum_calls=1, slow_call_duration=1)
        )

    breaker(work)()
    # It was not timed when it began, so nobody knows whether it was slow.
    assert breaker.snapshot().counters.slow == 0
    permit = breaker.acquire()
    clock.advance(2)
    permit.success()
    assert breaker.snapshot().counters.slow == 1


def test_timing_that_is_switched_off_meanwhile_does_no_harm(clock: FakeClock) -> None:
    breaker = breaker_with(clock, BreakerSettings(slow_call_duration=1))

    def work() -> None:
        clock.advance(5)
        breaker.replace_settings(BreakerSettings())

    breaker(work)()
    counters = breaker.snapshot().counters
    assert (counters.succeeded, counters.slow) == (1, 0)


def test_closing_by_other_settings_begins_their_window_and_ramp(clock: FakeClock) -> None:
    breaker = breaker_with(clock, BreakerSettings(half_open_max_calls=3))
    half_open_circuit(breaker, clock)
    breaker.acquire().success()
    breaker.replace_settings(
        BreakerSettings(half_open_max_calls=1, window_seconds=20, ramp_duration=8)
    )
    breaker.acquire().success()
    assert not breaker.can_execute()
    clock.advance(8)
    assert breaker.acquire()
    assert breaker.snapshot().calls == 1
