"""Durations: what calls take, and what live calls took while the dependency was well."""

from __future__ import annotations

import random
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import Baseline, BreakerRegistry, CircuitBreaker, Durations
from fusewire.operation import TimedCall, operation
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def recorded(clock: FakeClock, *seconds: float) -> Durations:
    durations = Durations(clock)
    for each in seconds:
        durations.record(each)
    return durations


def test_nothing_is_known_before_the_first_call(clock: FakeClock) -> None:
    durations = Durations(clock)
    assert durations.baseline() is None
    assert durations.slow_share() == 0.0
    assert durations.methods() == ()
    assert durations.histogram().calls == 0


def test_the_baseline_is_the_third_quartile_or_a_quarter_more_than_the_mean(
    clock: FakeClock,
) -> None:
    durations = Durations(clock)
    rng = random.Random(7)
    taken = sorted(rng.lognormvariate(-4, 1) for _ in range(1000))
    for each in taken:
        durations.record(each)
    baseline = durations.baseline()
    assert baseline is not None
    mean = sum(min(each, taken[950]) for each in taken) / 1000
    assert baseline.calls == 1000
    assert baseline.typical == pytest.approx(mean, rel=0.05)
    assert baseline.reference == pytest.approx(max(taken[750], 1.25 * mean), rel=0.05)


@pytest.mark.parametrize("seconds", [1e-6, 0.0001, 0.016, 2.0, 600.0])
def test_the_reference_is_above_calls_that_are_all_alike(clock: FakeClock, seconds: float) -> None:
    baseline = recorded(clock, *[seconds] * 30).baseline()
    assert baseline is not None
    assert seconds < baseline.reference


def test_calls_longer_than_the_last_bound_are_counted(clock: FakeClock) -> None:
    durations = recorded(clock, 1e6)
    assert durations.histogram().counts[-1] == 1
    assert durations.baseline() is not None


def test_methods_have_baselines_of_their_own(clock: FakeClock) -> None:
    durations = Durations(clock)
    for _ in range(20):
        durations.record(0.01, method="/shop/Get")
        durations.record(1.0, method="/shop/Report")
    fast, slow = durations.baseline("/shop/Get"), durations.baseline("/shop/Report")
    assert fast is not None
    assert slow is not None
    assert fast.reference < 0.1 < slow.typical
    assert durations.baseline("/shop/Other") is None
    assert durations.methods() == ("/shop/Get", "/shop/Report")
    together = durations.baseline()
    assert together is not None
    assert together.calls == 40


def test_the_minute_before_an_outage_is_not_the_measure(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    clock.advance(31)
    durations.record(1.0)
    clock.advance(31)
    for _ in range(20):
        durations.record(1.0)
    durations.begin_outage()
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 20
    assert baseline.reference < 0.1


def test_it_is_if_little_else_is_known(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 19)
    clock.advance(62)
    durations.record(1.0)
    durations.begin_outage()
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 20


def test_calls_of_an_outage_are_not_the_measure(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    before = durations.baseline()
    durations.begin_outage()
    for _ in range(20):
        durations.record(1.0)
    assert durations.baseline() == before
    assert durations.slow_share() == 20 / 40
    durations.end_outage()
    durations.record(1.0)
    after = durations.baseline()
    assert after is not None
    assert after.calls == 21


def test_calls_beside_replays_are_not_the_measure(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    before = durations.baseline()
    clock.advance(30)
    for _ in range(1000):
        durations.record(0.5, live=False)
        durations.record(0.5)
        clock.advance(1)
    assert durations.baseline() == before


def test_they_are_if_there_are_no_others(clock: FakeClock) -> None:
    durations = Durations(clock)
    for _ in range(30):
        durations.record(0.5, live=False)
        durations.record(0.5)
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 30


def test_replays_and_failures_are_not_the_measure(clock: FakeClock) -> None:
    durations = Durations(clock)
    durations.record(1.0, live=False)
    durations.record(1.0, failed=True)
    assert durations.baseline() is None


def test_the_measure_follows_the_time(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 20)
    for _ in range(300):
        clock.advance(1)
        durations.record(1.0)
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.typical == pytest.approx(1.0, rel=0.1)


def test_few_calls_are_kept_for_long(clock: FakeClock) -> None:
    durations = Durations(clock)
    for _ in range(30):
        clock.advance(3600)
        durations.record(0.01)
    baseline = durations.baseline()
    assert baseline is not None
    assert 20 <= baseline.calls < 25


def test_the_share_of_slow_calls_is_of_the_latest_50_live_ones(clock: FakeClock) -> None:
    durations = recorded(clock, *[0.01] * 200)
    durations.begin_outage()
    assert durations.slow_share() == 0.0
    for _ in range(10):
        durations.record(1.0)
        durations.record(1.0, live=False)
    assert durations.slow_share() == 0.2
    for _ in range(50):
        durations.record(1.0)
    assert durations.slow_share() == 1.0


def test_the_histogram_has_all_calls_and_never_decreases(clock: FakeClock) -> None:
    durations = Durations(clock)
    for _ in range(10):
        clock.advance(1000)
        for _ in range(10):
            durations.record(0.01)
            durations.record(0.02, live=False)
            durations.record(0.03, failed=True)
    answered, failed = durations.histogram(), durations.histogram(failed=True)
    assert (answered.calls, failed.calls) == (200, 100)
    assert answered.seconds == pytest.approx(3.0)
    assert len(answered.counts) == len(answered.bounds) + 1
    for bound, count in zip(answered.bounds, answered.counts[:-1], strict=True):
        assert not count or 0.01 <= bound < 0.0231


def test_threads_lose_no_call() -> None:
    durations = Durations()

    def work() -> None:
        for _ in range(5000):
            durations.record(0.01, method="a")

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert durations.histogram("a").calls == 20_000


def test_nothing_is_measured_until_it_is_asked_for(clock: FakeClock) -> None:
    registry = BreakerRegistry(clock=clock)
    before = registry.get("before")
    assert before.durations is None
    registry.measure_durations()
    kept = before.durations
    registry.measure_durations()
    assert before.durations is kept
    assert kept is not None
    assert registry.get("after").durations is not None


def measured(clock: FakeClock) -> CircuitBreaker:
    breaker = CircuitBreaker("payments", failure_threshold=2, clock=clock)
    breaker.measure_durations()
    return breaker


def calls_of(breaker: CircuitBreaker, *, failed: bool = False) -> tuple[int, float]:
    assert breaker.durations is not None
    histogram = breaker.durations.histogram(failed=failed)
    return histogram.calls, histogram.seconds


def test_a_permit_is_measured_once(clock: FakeClock) -> None:
    breaker = measured(clock)
    with breaker.acquire() as permit:
        clock.advance(0.5)
        permit.success()
        clock.advance(0.5)
        permit.success()
    assert calls_of(breaker) == (1, 0.5)


def test_only_timed_calls_that_say_something_are_measured(clock: FakeClock) -> None:
    breaker = measured(clock)
    breaker.acquire(timed=False).success()
    breaker.acquire().release()
    assert calls_of(breaker) == calls_of(breaker, failed=True) == (0, 0.0)
    breaker.acquire().failure()
    assert calls_of(breaker, failed=True) == (1, 0.0)


def test_an_inner_call_is_measured_in_place_of_the_outer_one(clock: FakeClock) -> None:
    breaker = measured(clock)

    def inner() -> None:
        with breaker.acquire():
            clock.advance(0.5)

    def outer() -> None:
        clock.advance(1)
        inner()
        clock.advance(1)

    breaker(outer)()
    with breaker.acquire():
        outer()
    assert calls_of(breaker) == (2, 1.0)


def test_decorated_functions_are_measured(clock: FakeClock) -> None:
    breaker = measured(clock)
    guarded = breaker(clock.advance)
    for _ in range(2000):  # on each of the ways through a circuit
        guarded(0.25)
    assert calls_of(breaker) == (2000, 500.0)


async def test_decorated_coroutine_functions_are_measured(clock: FakeClock) -> None:
    breaker = measured(clock)

    @breaker
    async def call() -> None:
        clock.advance(0.25)

    for _ in range(2000):
        await call()
    assert calls_of(breaker) == (2000, 500.0)


def test_functions_decorated_before_are_measured_too(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", clock=clock)
    guarded = breaker(clock.advance)
    guarded(1)
    breaker.measure_durations()
    guarded(2)
    assert calls_of(breaker) == (1, 2.0)


def test_a_closed_circuit_gives_the_baseline(clock: FakeClock) -> None:
    breaker = measured(clock)
    assert breaker.durations is not None
    for _ in range(20):
        with breaker.acquire():
            clock.advance(0.5)
    half_open_circuit(breaker, clock)
    baseline = breaker.durations.baseline()
    assert baseline is not None
    assert baseline.calls == 20
    late = breaker.acquire()
    clock.advance(1)
    late.success()
    assert breaker.durations.baseline() == baseline
    breaker.reset()
    breaker.acquire().success()
    after = breaker.durations.baseline()
    assert after is not None
    assert after.calls == 21


def test_measuring_that_begins_in_an_outage_has_no_baseline(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", failure_threshold=1, clock=clock)
    half_open_circuit(breaker, clock)
    breaker.measure_durations()
    breaker.acquire().success()
    assert breaker.durations is not None
    assert breaker.durations.baseline() is None


def test_calls_of_an_operation_are_on_its_list(clock: FakeClock) -> None:
    breaker = measured(clock)
    with operation("order-1") as work:
        breaker(clock.advance)(2)
        with breaker.acquire():
            clock.advance(3)
        breaker.acquire().failure()
    assert work.timed == (TimedCall("payments", "", 2.0), TimedCall("payments", "", 3.0))


def test_an_operation_keeps_its_last_64_durations(clock: FakeClock) -> None:
    breaker = measured(clock)
    guarded = breaker(clock.advance)
    with operation("order-1") as work:
        for number in range(100):
            guarded(number)
    assert [each.seconds for each in work.timed] == list(range(36, 100))


def test_calls_of_a_replay_are_not_live(clock: FakeClock) -> None:
    breaker = measured(clock)
    with operation("order-1", replay=True) as work:
        assert work.replay
        breaker(clock.advance)(2)
        with breaker.acquire():
            clock.advance(3)
    assert breaker.durations is not None
    assert breaker.durations.baseline() is None
    assert breaker.durations.histogram().calls == 2


def test_a_baseline_is_a_value() -> None:
    assert Baseline(0.02, 0.016, 100) == Baseline(reference=0.02, typical=0.016, calls=100)
