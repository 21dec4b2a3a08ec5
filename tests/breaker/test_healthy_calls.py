"""Healthy calls take no lock, and are counted all the same."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerSettings, CircuitBreaker, CircuitOpenError
from tests.support.circuits import locked

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.testing import FakeClock

COUNT = BreakerSettings(window_calls=100, failure_rate_threshold=0.5, slow_call_duration=2.0)
TIME = BreakerSettings(window_seconds=20, failure_rate_threshold=0.5)


def plain(breaker: CircuitBreaker, work: Callable[[], Any]) -> Callable[[], None]:
    return breaker(work)


def awaited(breaker: CircuitBreaker, work: Callable[[], Any]) -> Callable[[], None]:
    async def work_async() -> None:
        work()

    guarded = breaker(work_async)

    def call() -> None:
        # It awaits nothing that waits, so one step takes it to its end.
        with contextlib.suppress(StopIteration):
            guarded().send(None)

    return call


def prove(breaker: CircuitBreaker) -> None:
    """Have its healthy calls offer no loans, as after many of them."""
    breaker._unproven = 0
    breaker._refresh()


def plain_alone(breaker: CircuitBreaker, work: Callable[[], Any]) -> Callable[[], None]:
    prove(breaker)
    return plain(breaker, work)


def awaited_alone(breaker: CircuitBreaker, work: Callable[[], Any]) -> Callable[[], None]:
    prove(breaker)
    return awaited(breaker, work)


def by_permit(breaker: CircuitBreaker, work: Callable[[], Any]) -> Callable[[], None]:
    def call() -> None:
        with breaker.acquire():
            work()

    return call


WAYS = [plain, awaited, plain_alone, awaited_alone, by_permit]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("settings", [BreakerSettings(), COUNT, TIME])
def test_a_healthy_call_does_not_wait_for_the_lock(
    clock: FakeClock, way: Callable[..., Callable[[], None]], settings: BreakerSettings
) -> None:
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    call = way(breaker, lambda: clock.advance(settings.slow_call_duration or 0))
    with locked(breaker):
        call()
    snapshot = breaker.snapshot()
    assert (snapshot.counters.succeeded, snapshot.counters.slow) == (1, 0)


def test_a_look_at_a_closed_circuit_does_not_wait_for_the_lock(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", settings=COUNT, clock=clock)
    before = breaker.look()
    with locked(breaker):
        assert breaker.look() == before
    breaker.force_open()
    assert not breaker.look().admitted
    breaker.automatic()
    assert breaker.look() == before


@pytest.mark.parametrize("way", [plain, awaited])
def test_of_the_calls_that_offer_loans_only_the_last_takes_the_lock(
    breaker: CircuitBreaker, way: Callable[..., Callable[[], None]]
) -> None:
    breaker._unproven = 2
    call = way(breaker, lambda: None)
    with locked(breaker):
        call()
    call()
    assert len(breaker._healthy) == 0, "it counts under the lock"
    with locked(breaker):
        call()


def test_a_circuit_without_guarded_functions_looks_for_no_loans(breaker: CircuitBreaker) -> None:
    breaker.acquire().success()
    assert not breaker.lends
    with breaker.acquire():
        assert breaker.lends


@pytest.mark.parametrize("way", [plain, awaited])
def test_a_healthy_call_inside_a_call_of_another_circuit_needs_no_permit(
    breaker: CircuitBreaker, clock: FakeClock, way: Callable[..., Callable[[], None]]
) -> None:
    other = CircuitBreaker("ledger", clock=clock)
    other.call(way(breaker, lambda: None))
    assert list(breaker._healthy) == [breaker._generation]


@pytest.mark.parametrize("way", WAYS)
def test_a_slow_call_is_not_healthy(
    clock: FakeClock, way: Callable[..., Callable[[], None]]
) -> None:
    breaker = CircuitBreaker("payments", settings=COUNT, clock=clock)
    way(breaker, lambda: clock.advance(2.5))()
    assert breaker.snapshot().counters.slow == 1


@pytest.mark.parametrize("way", WAYS)
def test_few_calls_are_noted_before_they_are_counted(
    clock: FakeClock, way: Callable[..., Callable[[], None]]
) -> None:
    limit = 32 if way is by_permit else 64
    breaker = CircuitBreaker("payments", settings=COUNT, clock=clock)
    call = way(breaker, lambda: None)
    for noted in range(1, limit + 1):
        call()
        assert len(breaker._healthy) == noted
    call()
    assert len(breaker._healthy) == 0
    assert breaker.snapshot().counters.succeeded == limit + 1


@pytest.mark.parametrize("way", WAYS)
def test_a_call_belongs_to_the_slice_in_which_it_ends(
    clock: FakeClock, way: Callable[..., Callable[[], None]]
) -> None:
    breaker = CircuitBreaker("payments", settings=TIME, clock=clock)
    call = way(breaker, lambda: None)
    call()
    clock.advance(1)
    call()
    clock.advance(19)
    assert breaker.snapshot().calls == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_ends_after_a_change_of_state_is_late(
    clock: FakeClock, way: Callable[..., Callable[[], None]]
) -> None:
    breaker = CircuitBreaker("payments", settings=COUNT, clock=clock)
    way(breaker, breaker.reset)()
    counters = breaker.snapshot().counters
    assert (counters.succeeded, counters.late) == (0, 1)


@pytest.mark.parametrize("way", [plain, awaited, plain_alone, awaited_alone])
def test_the_clock_is_not_read_for_a_call_whose_duration_nobody_wants(
    clock: FakeClock, way: Callable[..., Callable[[], None]]
) -> None:
    reads = 0

    def counted() -> float:
        nonlocal reads
        reads += 1
        return clock()

    breaker = CircuitBreaker("payments", clock=counted)
    call = way(breaker, lambda: None)
    before = reads
    call()
    assert reads == before
    assert breaker.snapshot().counters.succeeded == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("window", [{"window_calls": 10}, {"window_seconds": 10}])
def test_the_success_that_brings_the_calls_to_their_minimum_opens_at_once(
    clock: FakeClock, way: Callable[..., Callable[[], None]], window: dict[str, Any]
) -> None:
    settings = BreakerSettings(**window, minimum_calls=4, failure_rate_threshold=0.25)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    call = way(breaker, lambda: None)
    breaker.acquire().failure()
    for _ in range(3):
        call()
    with pytest.raises(CircuitOpenError):
        call()
