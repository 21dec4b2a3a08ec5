"""What a circuit does that is disabled."""

from __future__ import annotations

from fusewire.breaker import BreakerSettings, CallEvent, CircuitBreaker, CircuitState, Event


def test_it_admits_and_counts_nothing(breaker: CircuitBreaker) -> None:
    breaker.disable()
    guarded = breaker(lambda: None)
    for _ in range(10):
        breaker.acquire().failure()
        breaker.acquire().success()
        breaker.acquire().release()
        guarded()
    assert breaker.state is CircuitState.DISABLED
    counters = breaker.snapshot().counters
    assert (counters.succeeded, counters.failed, counters.ignored) == (0, 0, 0)


def test_it_reports_nothing_about_its_calls(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, CallEvent)
    breaker.disable()
    breaker.acquire().failure()
    breaker.call(lambda: None)
    assert heard == []


def test_its_calls_have_no_effect_when_it_is_automatic_again() -> None:
    breaker = CircuitBreaker("payments", settings=BreakerSettings(failure_threshold=1))
    breaker.disable()
    breaker.acquire().failure()
    under_way = breaker.acquire()
    breaker.automatic()
    under_way.failure()
    assert breaker.state is CircuitState.CLOSED
    assert breaker.snapshot().consecutive_failures == 0
