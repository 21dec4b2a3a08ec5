"""A call that is cancelled at any of its awaits leaves no trace but one in `ignored`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerSettings, CircuitBreaker, CircuitState, Outcome
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fusewire.testing import FakeClock

AWAITS = 6


async def work() -> str:
    for _ in range(AWAITS):
        await asyncio.sleep(0)
    return "answer"


async def pages() -> AsyncIterator[int]:
    for page in range(AWAITS):
        await asyncio.sleep(0)
        yield page


def through_decorator(breaker: CircuitBreaker) -> Awaitable[Any]:
    return breaker(work)()


def through_call(breaker: CircuitBreaker) -> Awaitable[Any]:
    return breaker.call(work)


def through_plain_function(breaker: CircuitBreaker) -> Awaitable[Any]:
    return breaker.call(lambda: work())  # noqa: PLW0108 - a plain function that gives a coroutine


def through_call_async(breaker: CircuitBreaker) -> Awaitable[Any]:
    return breaker.call_async(work)


def through_fallback(breaker: CircuitBreaker) -> Awaitable[Any]:
    return breaker.call_with_fallback(work, fallback=lambda: "cached")


async def through_block(breaker: CircuitBreaker) -> Any:
    async with breaker.acquire():
        return await work()


async def through_generator(breaker: CircuitBreaker) -> Any:
    return [page async for page in breaker(pages)()]


WAYS = [
    through_decorator,
    through_call,
    through_plain_function,
    through_call_async,
    through_fallback,
    through_block,
    through_generator,
]


async def cancelled_after(steps: int, call: Awaitable[Any]) -> bool:
    """Run `call` as a task, cancel it after `steps` steps and return whether it was cancelled."""

    async def run() -> Any:
        return await call

    task = asyncio.create_task(run())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("judged", [False, True])
async def test_a_call_cancelled_at_any_await_is_ignored(
    clock: FakeClock,
    way: Callable[[CircuitBreaker], Awaitable[Any]],
    judged: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    classify = (lambda _: Outcome.SUCCESS) if judged else None
    settings = BreakerSettings(failure_threshold=1, classify_result=classify)
    for steps in range(1, AWAITS + 4):
        breaker = CircuitBreaker("payments", settings=settings, clock=clock)
        cancelled = await cancelled_after(steps, way(breaker))
        counters = breaker.snapshot().counters
        if steps <= AWAITS:
            assert cancelled
        assert counters.failed == 0
        assert counters.ignored + counters.succeeded == 1
        assert breaker.state is CircuitState.CLOSED


@pytest.mark.parametrize("way", WAYS)
async def test_a_probe_cancelled_at_any_await_gives_its_place_back(
    breaker: CircuitBreaker,
    clock: FakeClock,
    way: Callable[[CircuitBreaker], Awaitable[Any]],
) -> None:
    for steps in range(1, AWAITS + 1):
        breaker.reset()
        half_open_circuit(breaker, clock)
        assert await cancelled_after(steps, way(breaker))
        assert breaker.state is CircuitState.HALF_OPEN
        assert breaker.snapshot().probes_running == 0
        assert breaker.snapshot().probes_succeeded == 0


# A coroutine that a plain function made is never awaited then, and Python rightly warns of it.
@pytest.mark.parametrize("way", [way for way in WAYS if way is not through_plain_function])
async def test_a_task_cancelled_before_its_first_step_takes_no_permit(
    breaker: CircuitBreaker, clock: FakeClock, way: Callable[[CircuitBreaker], Awaitable[Any]]
) -> None:
    half_open_circuit(breaker, clock)
    call = way(breaker)
    task = asyncio.ensure_future(call)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert breaker.snapshot().probes_running == 0
