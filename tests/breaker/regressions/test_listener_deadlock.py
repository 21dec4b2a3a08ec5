"""A listener may use the breaker that calls it (gobreaker 37 runs listeners under the lock)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fusewire.breaker import BreakerRegistry, BreakerSettings, LeaseExpired
from fusewire.testing import FakeClock
from tests.support.circuits import open_circuit

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker, CircuitState, Event


def test_a_listener_that_looks_from_another_thread_gets_its_answer(
    breaker: CircuitBreaker,
) -> None:
    seen: list[CircuitState] = []

    def look_elsewhere(event: Event) -> None:
        thread = threading.Thread(target=lambda: seen.append(breaker.state), daemon=True)
        thread.start()
        thread.join(10)

    breaker.add_listener(look_elsewhere)
    open_circuit(breaker)
    assert seen == ["open"]


def test_a_listener_that_hears_of_what_a_full_registry_finds_may_use_the_registry() -> None:
    clock = FakeClock()
    settings = BreakerSettings(failure_threshold=1, recovery_timeout=1, probe_lease=1)
    registry = BreakerRegistry(settings, limit=1, clock=clock)
    breaker = registry.get("payments")
    breaker.acquire().failure()
    clock.advance(1)
    breaker.acquire()
    known: list[bool] = []
    breaker.add_listener(lambda _: known.append("payments" in registry), LeaseExpired)
    clock.advance(1)

    def ask_for_another() -> None:
        registry.get("search")

    thread = threading.Thread(target=ask_for_another, daemon=True)
    thread.start()
    thread.join(10)
    assert known == [True]
    assert "search" in registry
