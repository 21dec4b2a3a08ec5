"""What a breaker weighs: programs have one for each method they call."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

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


def taken() -> float:
    """Return the bytes of one breaker."""
    kept = [with_a_full_window() for _ in range(10)]
    tracemalloc.start()
    try:
        kept += [with_a_full_window() for _ in range(50)]
        return tracemalloc.get_traced_memory()[0] / 50
    finally:
        tracemalloc.stop()


def test_a_breaker_with_a_count_window_of_100_takes_at_most_4_kilobytes() -> None:
    # In a process of its own, or what other tests have left would count.
    code = f"from {__name__} import taken; print(taken())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert float(done.stdout) <= 4096
