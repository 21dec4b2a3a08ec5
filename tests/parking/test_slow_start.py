"""How many replays run at a time."""

from __future__ import annotations

import asyncio

import pytest

from fusewire.parking._slow_start import SlowStart


async def hold(slow_start: SlowStart, held: list[int], number: int, leave: asyncio.Event) -> None:
    async with slow_start:
        held.append(number)
        await leave.wait()


async def steps() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_begins_with_one_place_and_doubles_after_each_healthy_window() -> None:
    slow_start = SlowStart(5)
    windows = [slow_start.window]
    for _ in range(12):
        slow_start.succeeded(slow_start.begins(outage=False))
        windows.append(slow_start.window)
    assert windows == [1, 2, 2, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5]


async def test_a_failure_begins_again_with_one_place() -> None:
    slow_start = SlowStart(8)
    for _ in range(7):
        slow_start.succeeded(slow_start.begins(outage=False))
    assert slow_start.window == 8
    slow_start.failed()
    assert slow_start.window == 1
    slow_start.succeeded(slow_start.begins(outage=False))
    assert slow_start.window == 2


async def test_a_success_that_began_before_a_failure_does_not_count_after_it() -> None:
    slow_start = SlowStart(8)
    before = slow_start.begins(outage=False)
    slow_start.succeeded(before)
    slow_start.failed()
    slow_start.succeeded(before)
    assert slow_start.window == 1


async def test_it_falls_with_the_first_probe_of_an_outage_that_nobody_saw_begin() -> None:
    slow_start = SlowStart(8)
    for _ in range(7):
        slow_start.succeeded(slow_start.begins(outage=False))
    slow_start.begins(outage=False)
    assert slow_start.window == 8
    begun = slow_start.begins(outage=True)
    assert slow_start.window == 1
    slow_start.succeeded(begun)
    slow_start.begins(outage=True)
    assert slow_start.window == 2  # the same outage
    slow_start.begins(outage=False)
    slow_start.begins(outage=True)
    assert slow_start.window == 1


async def test_places_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    slow_start, held, leave = SlowStart(4), [], asyncio.Event()
    tasks = [asyncio.create_task(hold(slow_start, held, number, leave)) for number in range(4)]
    await steps()
    assert held == [0]
    slow_start.succeeded(slow_start.begins(outage=False))
    await steps()
    assert held == [0, 1]
    leave.set()
    await asyncio.gather(*tasks)
    assert held == [0, 1, 2, 3]


async def test_a_cancelled_wait_leaves_no_place_taken() -> None:
    slow_start, held, leave = SlowStart(1), [], asyncio.Event()
    first, second, third = (
        asyncio.create_task(hold(slow_start, held, number, leave)) for number in range(3)
    )
    await steps()
    second.cancel()
    leave.set()
    await asyncio.gather(first, third)
    assert held == [0, 2]


async def test_a_place_given_in_the_moment_of_a_cancellation_goes_to_the_next() -> None:
    slow_start, held, leave = SlowStart(1), [], asyncio.Event()
    first, second, third = (
        asyncio.create_task(hold(slow_start, held, number, leave)) for number in range(3)
    )
    await steps()
    leave.set()
    await asyncio.sleep(0)  # the first leaves, and gives its place to the second
    second.cancel()
    await asyncio.gather(first, third)
    assert 2 in held


@pytest.mark.parametrize("waiting", [0, 3])
async def test_opened_it_lets_everybody_through_also_who_comes_later(waiting: int) -> None:
    slow_start, held, leave = SlowStart(1), [], asyncio.Event()
    tasks = [
        asyncio.create_task(hold(slow_start, held, number, leave)) for number in range(waiting)
    ]
    await steps()
    slow_start.open()
    tasks.append(asyncio.create_task(hold(slow_start, held, 99, leave)))
    await steps()
    assert held == [*range(waiting), 99]
    leave.set()
    await asyncio.gather(*tasks)


async def test_who_holds_a_place_that_is_no_more_stands_in_line_again() -> None:
    slow_start, held, leave = SlowStart(4), [], asyncio.Event()
    slow_start.succeeded(slow_start.begins(outage=False))
    async with slow_start:
        assert not slow_start.crowded
        first = asyncio.create_task(hold(slow_start, held, 1, leave))
        await steps()
        slow_start.failed()
        assert slow_start.crowded
        again = asyncio.create_task(slow_start.stand_in_line_again())
        await steps()
        assert not again.done()
        leave.set()
        await asyncio.gather(first, again)
        assert not slow_start.crowded
    async with asyncio.timeout(1):
        await hold(slow_start, held, 2, leave)
    assert held == [1, 2]


async def test_standing_in_line_again_can_be_cancelled_and_leaves_no_place_taken() -> None:
    slow_start, held, leave = SlowStart(4), [], asyncio.Event()
    slow_start.succeeded(slow_start.begins(outage=False))
    first = asyncio.create_task(hold(slow_start, held, 1, leave))
    await steps()

    async def crowded() -> None:
        async with slow_start:
            slow_start.failed()
            await slow_start.stand_in_line_again()

    second = asyncio.create_task(crowded())
    await steps()
    second.cancel()
    leave.set()
    await asyncio.gather(first, second, return_exceptions=True)
    await asyncio.wait_for(hold(slow_start, held, 2, leave), 1)
    later = asyncio.Event()
    tasks = [asyncio.create_task(hold(slow_start, held, number, later)) for number in (3, 4)]
    await steps()
    assert held == [1, 2, 3]
    later.set()
    await asyncio.gather(*tasks)
