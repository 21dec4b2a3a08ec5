"""Calls that hang open a circuit before they end, where that is switched on (resilience4j 1597)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import BreakerSettings, Cause, CircuitBreaker, CircuitOpenError, CircuitState

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

SETTINGS = BreakerSettings(
    failure_threshold=None,
    window_calls=10,
    minimum_calls=4,
    slow_call_duration=2.0,
    slow_call_rate_threshold=0.5,
    open_on_hanging=True,
    probe_lease=60.0,
)


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker("payments", settings=SETTINGS, clock=clock)


def test_the_call_after_too_many_hang_is_rejected(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    for _ in range(2):
        breaker.acquire().success()
    for _ in range(2):
        breaker.acquire()
    clock.advance(2.0)
    assert breaker.look().admitted
    clock.advance(0.5)
    look = breaker.look()
    assert (look.admitted, look.state, look.retry_after) == (False, CircuitState.OPEN, 30.0)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert caught.value.reason == "2 of 4 calls were slow or hang: a rate of 0.5, threshold 0.5"
    reason = breaker.snapshot().reason
    assert reason is not None
    assert reason.cause is Cause.HANGING_CALLS


def test_calls_that_end_hang_no_more(breaker: CircuitBreaker, clock: FakeClock) -> None:
    permits = [breaker.acquire() for _ in range(4)]
    clock.advance(1)
    for permit in permits[:3]:
        permit.release()
    clock.advance(10)
    assert breaker.look().admitted
    permits[3].release()
    assert breaker.acquire()


def test_a_call_counts_once_whether_it_hangs_or_has_ended(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    permits = [breaker.acquire() for _ in range(3)]
    clock.advance(3)
    assert breaker.look().admitted
    permits[0].success()
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.slow) == (1, 1)
    assert breaker.look().admitted


def test_leaked_permits_are_forgotten_after_the_lease(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    for _ in range(4):
        breaker.acquire()
    clock.advance(60)
    assert not breaker.look().admitted
    clock.advance(0.5)
    assert breaker.acquire()


def test_streams_do_not_hang(breaker: CircuitBreaker, clock: FakeClock) -> None:
    for _ in range(10):
        breaker.acquire(timed=False)
    clock.advance(30)
    assert breaker.acquire()


def test_a_stream_does_not_hide_the_calls_behind_it(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.acquire(timed=False)
    for _ in range(4):
        breaker.acquire()
    clock.advance(3)
    assert not breaker.look().admitted


def test_switching_it_off_forgets_what_hangs(breaker: CircuitBreaker, clock: FakeClock) -> None:
    for _ in range(4):
        breaker.acquire()
    breaker.replace_settings(BreakerSettings(slow_call_duration=2.0))
    clock.advance(3)
    breaker.replace_settings(SETTINGS)
    assert breaker.look().admitted


async def test_a_coroutine_that_is_not_awaited_yet_does_not_hang(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    async def work() -> None: ...

    pending = [breaker.call(lambda: work()) for _ in range(4)]  # noqa: PLW0108 - a plain function that gives a coroutine
    clock.advance(3)
    assert breaker.look().admitted
    for each in pending:
        await each


def test_a_call_inside_another_hangs_no_more_when_it_has_ended(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.replace_settings(dataclasses.replace(SETTINGS, minimum_calls=1))
    breaker.call(lambda: breaker.call(int))
    clock.advance(3)
    assert breaker.look().admitted


def test_replacing_settings_keeps_what_hangs(breaker: CircuitBreaker, clock: FakeClock) -> None:
    for _ in range(4):
        breaker.acquire()
    breaker.replace_settings(dataclasses.replace(SETTINGS, recovery_timeout=5))
    clock.advance(3)
    assert not breaker.look().admitted


def test_other_settings_decide_again_which_calls_hang(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    for _ in range(4):
        breaker.acquire()
    clock.advance(1.5)
    assert breaker.look().admitted
    breaker.replace_settings(dataclasses.replace(SETTINGS, slow_call_duration=1.0))
    assert not breaker.look().admitted


def test_calls_hang_no_more_by_more_patient_settings(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    permits = [breaker.acquire() for _ in range(4)]
    permits.pop().release()
    clock.advance(3)
    assert breaker.look().admitted  # three hang, and four are the minimum
    breaker.replace_settings(dataclasses.replace(SETTINGS, slow_call_duration=5.0))
    breaker.acquire().success()
    assert breaker.look().admitted
    clock.advance(2.5)
    assert not breaker.look().admitted


def test_what_was_forgotten_is_not_remembered_by_a_longer_lease(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    for _ in range(4):
        breaker.acquire()
    clock.advance(60.5)
    breaker.replace_settings(dataclasses.replace(SETTINGS, probe_lease=1000))
    assert breaker.look().admitted


def test_a_look_shows_the_first_open_time_whatever_it_may_grow_to(clock: FakeClock) -> None:
    settings = dataclasses.replace(SETTINGS, recovery_timeout_growth=2.0)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    for _ in range(4):
        breaker.acquire()
    clock.advance(3)
    assert breaker.look().retry_after == 30.0
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert caught.value.retry_after == 30.0


def test_a_call_whose_lease_just_lasts_is_kept_by_other_settings(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    for _ in range(4):
        breaker.acquire()
    clock.advance(60)
    breaker.replace_settings(dataclasses.replace(SETTINGS, probe_lease=1000))
    assert not breaker.look().admitted
