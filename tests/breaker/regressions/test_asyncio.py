"""One circuit serves threads and asyncio together (pybreaker 7 and 93: no asyncio)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import CircuitOpenError

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker


async def test_failures_in_threads_open_the_circuit_for_tasks(breaker: CircuitBreaker) -> None:
    def fail() -> None:
        raise ConnectionError

    for _ in range(2):
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(breaker.call, fail)
    with pytest.raises(CircuitOpenError):
        await breaker.call_async(asyncio.sleep, 0)
