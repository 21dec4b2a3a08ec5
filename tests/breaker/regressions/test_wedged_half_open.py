"""No probe can keep a circuit half open forever.

resilience4j 544, 935 and 2028, Polly 1979, opossum 388, and interlock with a probe that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import CircuitBreaker, CircuitOpenError, CircuitState
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def close_with_answers(breaker: CircuitBreaker) -> None:
    for _ in range(breaker.settings.half_open_max_calls):
        breaker.call(lambda: "answer")
    assert breaker.state is CircuitState.CLOSED


@pytest.fixture(autouse=True)
def _half_open(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open_circuit(breaker, clock)


async def test_probes_that_hang_give_their_places_back_when_their_lease_ends(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    hung = [asyncio.create_task(breaker.call_async(asyncio.Event().wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    clock.advance(60)
    close_with_answers(breaker)
    for task in hung:
        task.cancel()
    await asyncio.gather(*hung, return_exceptions=True)
    assert breaker.state is CircuitState.CLOSED


async def test_cancelled_probes_give_their_places_back(breaker: CircuitBreaker) -> None:
    hung = [asyncio.create_task(breaker.call_async(asyncio.Event().wait)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in hung:
        task.cancel()
    await asyncio.gather(*hung, return_exceptions=True)
    close_with_answers(breaker)


def test_ignored_probes_give_their_places_back(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", 1, 10, 1, expected_exceptions=(OSError,), clock=clock)
    half_open_circuit(breaker, clock)
    for _ in range(10):
        with contextlib.suppress(ZeroDivisionError):
            breaker.call(lambda: 1 // 0)
        assert breaker.state is CircuitState.HALF_OPEN
    close_with_answers(breaker)


def test_leaked_permits_give_their_places_back_when_their_lease_ends(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.acquire()
    breaker.acquire()
    assert not breaker.can_execute()
    clock.advance(60)
    close_with_answers(breaker)
