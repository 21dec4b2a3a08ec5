"""What a circuit does that only counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker import BreakerSettings, CircuitBreaker, CircuitState

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def test_it_admits_and_counts_and_never_opens(clock: FakeClock) -> None:
    settings = BreakerSettings(window_calls=10, failure_rate_threshold=0.1, failure_threshold=1)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.metrics_only()
    guarded = breaker(lambda: None)
    for _ in range(10):
        breaker.acquire().failure()
    guarded()
    assert breaker.state is CircuitState.METRICS_ONLY
    snapshot = breaker.snapshot()
    assert (snapshot.counters.failed, snapshot.counters.succeeded) == (10, 1)
    assert (snapshot.calls, snapshot.failed) == (10, 9)


def test_healthy_calls_are_counted(breaker: CircuitBreaker) -> None:
    breaker.metrics_only()
    guarded = breaker(lambda: None)
    for _ in range(3):
        guarded()
    assert breaker.snapshot().counters.succeeded == 3
    assert breaker.state is CircuitState.METRICS_ONLY


def test_what_it_saw_does_not_open_it_when_it_is_automatic_again(breaker: CircuitBreaker) -> None:
    breaker.metrics_only()
    for _ in range(10):
        breaker.acquire().failure()
    breaker.automatic()
    assert breaker.state is CircuitState.CLOSED
    breaker.acquire().failure()
    assert breaker.state is CircuitState.CLOSED
    assert breaker.snapshot().counters.failed == 11
