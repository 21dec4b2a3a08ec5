"""What lasts for too long is told, once and in time, and one timer is enough for all of it."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from fusewire.parking._overdue import Overdue

pytestmark = pytest.mark.anyio

AGES = 3600.0
SOON = 0.02
LIMIT = 30.0


async def the_next(late: asyncio.Queue[str]) -> str:
    return await asyncio.wait_for(late.get(), LIMIT)


async def test_all_that_last_too_long_are_told_in_order_and_once() -> None:
    late: asyncio.Queue[str] = asyncio.Queue()
    overdue = Overdue(SOON, late.put_nowait)
    for name in ("a", "b", "c"):
        overdue.begin(name)
    assert [await the_next(late) for _ in range(3)] == ["a", "b", "c"]
    overdue.begin("d")
    assert await the_next(late) == "d"
    assert late.empty()


async def test_what_has_ended_in_time_is_not_reported() -> None:
    late: asyncio.Queue[str] = asyncio.Queue()
    overdue = Overdue(SOON, late.put_nowait)
    overdue.begin("ended")
    overdue.begin("not ended")
    overdue.end("ended")
    overdue.end("ended")
    assert await the_next(late) == "not ended"
    assert late.empty()


async def test_one_that_begins_after_all_others_have_ended_is_reported() -> None:
    loop = asyncio.get_running_loop()
    late: asyncio.Queue[str] = asyncio.Queue()
    overdue = Overdue(SOON, late.put_nowait)
    with patch.object(loop, "call_at") as call_at:
        overdue.begin("ended")
        overdue.end("ended")
    _, go_off, *arguments = call_at.call_args.args
    go_off(*arguments)  # the timer, in vain
    overdue.begin("not ended")
    assert await the_next(late) == "not ended"


async def test_one_timer_is_enough_for_any_number() -> None:
    loop = asyncio.get_running_loop()
    overdue: Overdue[int] = Overdue(AGES, lambda _: None)
    with patch.object(loop, "call_at", wraps=loop.call_at) as call_at:
        for number in range(1000):
            overdue.begin(number)
            overdue.end(number - 5)
    assert call_at.call_count == 1


async def test_an_error_in_reporting_one_does_not_stop_the_others() -> None:
    late: asyncio.Queue[str] = asyncio.Queue()
    errors: list[object] = []

    def tell(name: str) -> None:
        late.put_nowait(name)
        if name == "a":
            raise RuntimeError(name)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: errors.append(context["exception"]))
    try:
        overdue = Overdue(SOON, tell)
        overdue.begin("a")
        overdue.begin("b")
        assert [await the_next(late) for _ in range(2)] == ["a", "b"]
    finally:
        loop.set_exception_handler(None)
    assert [str(error) for error in errors] == ["a"]


def test_it_serves_one_event_loop_after_another() -> None:
    late: asyncio.Queue[str] = asyncio.Queue()
    overdue = Overdue(SOON, late.put_nowait)

    async def cut_off() -> None:
        overdue.begin("a")
        overdue.end("a")

    async def later() -> str:
        overdue.begin("b")
        return await the_next(late)

    asyncio.run(cut_off())  # which leaves a timer that never goes off
    assert asyncio.run(later()) == "b"
