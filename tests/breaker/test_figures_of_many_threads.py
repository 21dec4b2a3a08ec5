"""Figures are read while threads call: nothing falls, and the sums are what was called."""

from __future__ import annotations

import threading
from itertools import pairwise

from fusewire.breaker import BreakerSettings, CircuitBreaker, CircuitOpenError, Figures
from tests.support.figures import where_transitions_lead

THREADS = 16
CALLS = 400


def call_often(breaker: CircuitBreaker, seen: list[int]) -> None:
    @breaker
    def call(step: int) -> None:
        if step % 3 == 0:
            raise ConnectionError

    for step in range(CALLS):
        try:
            call(step)
            seen[0] += 1
        except ConnectionError:
            seen[1] += 1
        except CircuitOpenError:
            seen[2] += 1


def call_and_look_on(breaker: CircuitBreaker, told: list[list[int]]) -> list[Figures]:
    """Call in many threads, count what they saw, and return what was read meanwhile and then."""
    stop = threading.Event()
    read: list[Figures] = []

    def look_on() -> None:
        while not stop.is_set():
            read.append(breaker.figures())

    threads = [threading.Thread(target=call_often, args=(breaker, seen)) for seen in told]
    onlooker = threading.Thread(target=look_on)
    for thread in (onlooker, *threads):
        thread.start()
    for thread in threads:
        thread.join(60)
    stop.set()
    onlooker.join(60)
    return [*read, breaker.figures()]


def test_nothing_falls_while_threads_call_and_the_sums_are_exact() -> None:
    settings = BreakerSettings(
        failure_threshold=3,
        recovery_timeout=0.000_01,
        half_open_max_calls=1,
        window_calls=50,
        failure_rate_threshold=0.5,
    )
    breaker = CircuitBreaker("payments", settings=settings)
    breaker.measure_durations()
    told = [[0, 0, 0] for _ in range(THREADS)]
    read = call_and_look_on(breaker, told)
    counters, durations = read[-1].counters, read[-1].durations
    succeeded, failed, rejected = (sum(column) for column in zip(*told, strict=True))
    assert counters.rejected == rejected
    assert counters.succeeded + counters.failed + counters.late == succeeded + failed
    assert durations is not None
    assert (durations.answered.calls, durations.failed.calls) == (succeeded, failed)
    assert len(read) > 10
    for before, after in pairwise(read):
        assert all(one <= other for one, other in zip(totals(before), totals(after), strict=True))
        (state,) = where_transitions_lead(after.counters.transitions)
        # An open circuit whose time is over shows as half open.
        assert after.state == state or (after.state, state) == ("half_open", "open")


def totals(figures: Figures) -> list[float]:
    counters, durations = figures.counters, figures.durations
    assert durations is not None
    names = ("succeeded", "failed", "ignored", "slow", "rejected", "late", "opened", "open_seconds")
    return [
        *(getattr(counters, name) for name in names),
        *(each.count for each in counters.transitions),
        *durations.answered.counts,
        *durations.failed.counts,
    ]
