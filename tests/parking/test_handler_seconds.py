"""How long a handler took is its own time, whatever the event loop and the threads do meanwhile."""

from __future__ import annotations

import asyncio
import concurrent.futures
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.parking import _calling
from fusewire.parking._calling import HandlerCall, HandlerCalls
from fusewire.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(_calling, "time", SimpleNamespace(monotonic=clock))
    return clock


def call_of(handler: Callable[[Any], Any]) -> HandlerCall:
    calls = HandlerCalls(handler, threads=1, timeout=None, warn_after=(60.0, 60.0))
    view: Any = None
    return HandlerCall(calls, view)


async def test_what_a_handler_waits_for_counts_and_its_turn_of_the_event_loop_does_not(
    clock: FakeClock,
) -> None:
    answered = asyncio.Event()

    async def handler(_: object) -> None:
        await answered.wait()

    call = call_of(handler)
    running = asyncio.create_task(call.run())
    await asyncio.sleep(0)  # its task is made, and has not begun
    clock.advance(100)
    await asyncio.sleep(0)
    clock.advance(3)
    answered.set()
    await running

    assert call.seconds == 3


async def test_a_plain_function_is_measured_in_its_thread(clock: FakeClock) -> None:
    call = call_of(lambda _: clock.advance(3))

    await call.run()

    assert call.seconds == 3


async def test_what_a_handler_returned_counts_with_it(clock: FakeClock) -> None:
    future = concurrent.futures.Future[None]()

    async def handler(_: object) -> concurrent.futures.Future[None]:
        clock.advance(20)
        return future

    call = call_of(handler)
    running = asyncio.create_task(call.run())
    for _ in range(10):  # steps until it waits for the future
        await asyncio.sleep(0)
    clock.advance(300)
    future.set_result(None)
    await running

    assert call.seconds == 320


async def test_a_handler_that_failed_has_taken_its_time_too(clock: FakeClock) -> None:
    async def handler(_: object) -> None:
        clock.advance(3)
        raise KeyError("a")

    call = call_of(handler)

    with pytest.raises(KeyError):
        await call.run()

    assert call.seconds == 3
