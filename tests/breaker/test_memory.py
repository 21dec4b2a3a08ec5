"""What a breaker weighs: programs have one for each method they call."""

from __future__ import annotations

import tracemalloc

from fusewire.breaker import BreakerSettings, CircuitBreaker

RATES = BreakerSettings(
    window_calls=100,
    failure_rate_threshold=0.5,
    slow_call_duration=1.0,
    slow_call_rate_threshold=0.5,
)


def with_a_full_window() -> CircuitBreaker:
    breaker = CircuitBreaker("payments", settings=RATES)
    guarded = breaker(int)
    for _ in range(RATES.window_calls or 0):
        guarded()
    return breaker


def test_a_breaker_with_a_count_window_of_100_takes_at_most_4_kilobytes() -> None:
    kept = [with_a_full_window() for _ in range(10)]
    tracemalloc.start()
    try:
        kept += [with_a_full_window() for _ in range(50)]
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken / 50 <= 4096
