"""A cancelled probe neither keeps its place nor closes the circuit.

interlock PR 60 kept the place; circuitbreaker closed the circuit.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import CircuitState
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker
    from fusewire.testing import FakeClock


async def test_cancelling_a_probe_leaves_the_circuit_half_open(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    for _ in range(5):
        probe = asyncio.create_task(breaker.call_async(asyncio.Event().wait))
        await asyncio.sleep(0)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert breaker.state is CircuitState.HALF_OPEN
        assert breaker.can_execute()
