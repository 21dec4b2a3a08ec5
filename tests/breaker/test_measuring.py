"""Measuring: which calls of a breaker are recorded, as what, and how often."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import Baseline, BreakerRegistry, CircuitBreaker, CircuitState
from fusewire.operation import TimedCall, operation
from tests.support.circuits import half_open_circuit, interrupt, open_circuit
from tests.support.ways_through import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.testing import FakeClock


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
    permit = breaker.acquire()
    with permit.lending():
        outer()
    permit.success()
    assert calls_of(breaker) == (3, 1.5)


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
    late = breaker.acquire()
    open_circuit(breaker)
    breaker.measure_durations()
    late.success()
    assert calls_of(breaker) == (1, 0.0)
    assert breaker.durations is not None
    assert breaker.durations.baseline() is None


def test_measuring_may_begin_while_a_probe_is_in_flight(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", 1, 10.0, 1, clock=clock)
    half_open_circuit(breaker, clock)
    probe = breaker.acquire()
    clock.advance(1.0)
    breaker.measure_durations()
    probe.success()
    assert breaker.state is CircuitState.CLOSED
    assert calls_of(breaker) == (1, 1.0)


def test_calls_of_an_operation_are_on_its_list(clock: FakeClock) -> None:
    breaker = measured(clock)
    with operation("order-1") as work:
        breaker(clock.advance)(2)
        with breaker.acquire():
            clock.advance(3)
        breaker.acquire().failure()
        with pytest.raises(ConnectionError):
            breaker(fail)()
    assert work.timed == (TimedCall("payments", "", 2.0), TimedCall("payments", "", 3.0))
    assert calls_of(breaker) == (2, 5.0)
    assert calls_of(breaker, failed=True) == (2, 0.0)


def test_calls_of_an_operation_that_is_no_replay_are_live(clock: FakeClock) -> None:
    for by_permit in (True, False):
        breaker = measured(clock)
        guarded = breaker(clock.advance)
        with operation("order-1"):
            for _ in range(20):
                if by_permit:
                    with breaker.acquire():
                        clock.advance(3)
                else:
                    guarded(3)
        assert breaker.durations is not None
        assert breaker.durations.methods() == ("",)
        baseline = breaker.durations.baseline()
        assert baseline is not None
        assert baseline.calls == 20


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
    clock.advance(30)
    for _ in range(20):
        breaker.acquire().success()
    baseline = breaker.durations.baseline()
    assert baseline is not None
    assert baseline.calls == 20


def test_code_that_interrupts_a_change_neither_waits_nor_loses_a_call(clock: FakeClock) -> None:
    breaker = measured(clock)
    durations = breaker.durations
    assert durations is not None

    def interrupting() -> tuple[Baseline | None, float | None]:
        for _ in range(200):
            durations.record(0.5)
        breaker.acquire().success()
        return durations.baseline(), durations.slow_share()

    assert interrupt(breaker, interrupting) == (None, None)
    assert durations.histogram().calls == 201
    assert durations.baseline() is not None


def test_a_finalizer_may_use_the_breaker_while_its_durations_are_counted(clock: FakeClock) -> None:
    breaker = measured(clock)
    durations = breaker.durations
    assert durations is not None
    durations.notes.append(partial(open_circuit, breaker))  # runs where a finalizer may
    assert durations.histogram(failed=True).calls == 0
    assert durations.histogram(failed=True).calls == 2
    assert breaker.snapshot().counters.failed == 2


def test_a_finalizer_may_ask_for_durations_while_they_are_counted(clock: FakeClock) -> None:
    breaker = measured(clock)
    durations = breaker.durations
    assert durations is not None
    answers: list[int] = []

    def finalize() -> None:
        breaker.acquire().success()
        answers.append(durations.histogram().calls)

    durations.notes.append(partial(finalize))  # runs where a finalizer may
    assert durations.histogram().calls == 0
    assert answers == [0], "it does not count within what it interrupts"
    assert durations.histogram().calls == 1


@pytest.mark.parametrize("opens", [CircuitBreaker.force_open, open_circuit])
def test_an_outage_begins_when_the_circuit_is_opened_and_not_when_that_is_carried_out(
    clock: FakeClock, opens: Callable[[CircuitBreaker], None]
) -> None:
    breaker = measured(clock)
    durations = breaker.durations
    assert durations is not None
    for seconds in (0.01, 1.0):
        clock.advance(100)
        for _ in range(20):
            durations.record(seconds)

    def open_early() -> None:
        opens(breaker)  # deferred until the change that it interrupts ends
        clock.advance(100)

    interrupt(breaker, open_early)
    baseline = durations.baseline()
    assert baseline is not None
    assert baseline.calls == 20
