"""Cancelled calls are not failures (resilience4j 682, cockroach 35433, purgatory)."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import CircuitState

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker


async def test_any_number_of_cancelled_calls_leaves_the_circuit_closed(
    breaker: CircuitBreaker,
) -> None:
    for _ in range(20):
        call = asyncio.create_task(breaker.call_async(asyncio.Event().wait))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert breaker.state is CircuitState.CLOSED


async def test_a_callers_timeout_around_the_guarded_call_is_a_cancellation(
    breaker: CircuitBreaker,
) -> None:
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(breaker.call_async(asyncio.Event().wait), timeout=0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await breaker.call_async(asyncio.Event().wait)
    assert breaker.state is CircuitState.CLOSED


def test_a_future_that_was_cancelled_has_not_failed(breaker: CircuitBreaker) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    future.cancel()
    for _ in range(5):
        with pytest.raises(concurrent.futures.CancelledError):
            breaker.call(future.result)
    assert breaker.state is CircuitState.CLOSED
