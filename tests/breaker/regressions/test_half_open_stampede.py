"""A half-open circuit lets a few probes through, however many call at once.

resilience4j 343 and 1432, Polly 216, opossum 119. circuitbreaker, aiobreaker, purgatory and hyx
put no bound on probes.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from fusewire.breaker import CircuitOpenError
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker, Permit
    from fusewire.testing import FakeClock


def test_of_twenty_threads_that_come_at_once_two_get_through(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    together = threading.Barrier(20)
    admitted: list[Permit] = []

    def come() -> None:
        together.wait(10)
        with contextlib.suppress(CircuitOpenError):
            admitted.append(breaker.acquire())

    threads = [threading.Thread(target=come, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(admitted) == 2
