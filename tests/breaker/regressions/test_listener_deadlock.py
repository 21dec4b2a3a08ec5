"""A listener may use the breaker that calls it (gobreaker 37 runs listeners under the lock)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

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
