"""How many replays run at a time."""

from __future__ import annotations

import asyncio

import pytest

from fusewire.parking._slow_start import SlowStart


async def hold(ramp: SlowStart, held: list[int], number: int, leave: asyncio.Event) -> None:
    async with ramp:
        held.append(number)
        await leave.wait()


async def steps() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_begins_with_one_place_and_doubles_after_each_healthy_window() -> None:
    ramp = SlowStart(5)
    windows = [ramp.window]
    for _ in range(12):
        ramp.succeeded(ramp.falls)
        windows.append(ramp.window)
    assert windows == [1, 2, 2, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5]


async def test_a_failure_begins_again_with_one_place() -> None:
    ramp = SlowStart(8)
    for _ in range(7):
        ramp.succeeded(ramp.falls)
    assert ramp.window == 8
    ramp.failed()
    assert ramp.window == 1
    ramp.succeeded(ramp.falls)
    assert ramp.window == 2


async def test_a_success_that_began_before_a_failure_does_not_count_after_it() -> None:
    ramp = SlowStart(8)
    before = ramp.falls
    ramp.succeeded(before)
    ramp.failed()
    ramp.succeeded(before)
    assert ramp.window == 1


async def test_it_falls_with_the_first_probe_of_an_outage_that_nobody_saw_begin() -> None:
    ramp = SlowStart(8)
    for _ in range(7):
        ramp.succeeded(ramp.falls)
    ramp.begins(outage=False)
    assert ramp.window == 8
    ramp.begins(outage=True)
    assert ramp.window == 1
    ramp.succeeded(ramp.falls)
    ramp.begins(outage=True)
    assert ramp.window == 2  # the same outage
    ramp.begins(outage=False)
    ramp.begins(outage=True)
    assert ramp.window == 1


async def test_places_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    ramp, held, leave = SlowStart(4), [], asyncio.Event()
    tasks = [asyncio.create_task(hold(ramp, held, number, leave)) for number in range(4)]
    await steps()
    assert held == [0]
    ramp.succeeded(ramp.falls)
    await steps()
    assert held == [0, 1]
    leave.set()
    await asyncio.gather(*tasks)
    assert held == [0, 1, 2, 3]


async def test_a_cancelled_wait_leaves_no_place_taken() -> None:
    ramp, held, leave = SlowStart(1), [], asyncio.Event()
    first, second, third = (
        asyncio.create_task(hold(ramp, held, number, leave)) for number in range(3)
    )
    await steps()
    second.cancel()
    leave.set()
    await asyncio.gather(first, third)
    assert held == [0, 2]


async def test_a_place_given_in_the_moment_of_a_cancellation_goes_to_the_next() -> None:
    ramp, held, leave = SlowStart(1), [], asyncio.Event()
    first, second, third = (
        asyncio.create_task(hold(ramp, held, number, leave)) for number in range(3)
    )
    await steps()
    leave.set()
    await asyncio.sleep(0)  # the first leaves, and gives its place to the second
    second.cancel()
    await asyncio.gather(first, third)
    assert 2 in held


@pytest.mark.parametrize("waiting", [0, 3])
async def test_opened_it_lets_everybody_through_also_who_comes_later(waiting: int) -> None:
    ramp, held, leave = SlowStart(1), [], asyncio.Event()
    tasks = [asyncio.create_task(hold(ramp, held, number, leave)) for number in range(waiting)]
    await steps()
    ramp.open()
    tasks.append(asyncio.create_task(hold(ramp, held, 99, leave)))
    await steps()
    assert held == [*range(waiting), 99]
    leave.set()
    await asyncio.gather(*tasks)


async def test_who_holds_a_place_that_is_no_more_stands_in_line_again() -> None:
    ramp, held, leave = SlowStart(4), [], asyncio.Event()
    ramp.succeeded(ramp.falls)
    async with ramp:
        assert not ramp.crowded
        first = asyncio.create_task(hold(ramp, held, 1, leave))
        await steps()
        ramp.failed()
        assert ramp.crowded
        again = asyncio.create_task(ramp.stand_in_line_again())
        await steps()
        assert not again.done()
        leave.set()
        await asyncio.gather(first, again)
        assert not ramp.crowded
    async with asyncio.timeout(1):
        await hold(ramp, held, 2, leave)
    assert held == [1, 2]


async def test_standing_in_line_again_can_be_cancelled_and_leaves_no_place_taken() -> None:
    ramp, held, leave = SlowStart(4), [], asyncio.Event()
    ramp.succeeded(ramp.falls)
    first = asyncio.create_task(hold(ramp, held, 1, leave))
    await steps()

    async def crowded() -> None:
        async with ramp:
            ramp.failed()
            await ramp.stand_in_line_again()

    second = asyncio.create_task(crowded())
    await steps()
    second.cancel()
    leave.set()
    await asyncio.gather(first, second, return_exceptions=True)
    await asyncio.wait_for(hold(ramp, held, 2, leave), 1)
    later = asyncio.Event()
    tasks = [asyncio.create_task(hold(ramp, held, number, later)) for number in (3, 4)]
    await steps()
    assert held == [1, 2, 3]
    later.set()
    await asyncio.gather(*tasks)
