"""In which order replays wait, and what wakes them."""

from __future__ import annotations

import asyncio

from fusewire.parking._line import Line, Notice


async def steps() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def pass_through(line: Line, number: int, passed: list[int], gate: asyncio.Event) -> None:
    with line.place(number) as place:
        await gate.wait()
        while not place.first:
            await place.notice.wait()
        passed.append(number)


async def test_who_comes_first_begins_first_and_each_wakes_the_next() -> None:
    line, passed, gate = Line(), [], asyncio.Event()
    tasks = [asyncio.create_task(pass_through(line, n, passed, gate)) for n in (3, 1, 2)]
    await steps()
    assert len(line) == 3
    gate.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    assert passed == [1, 2, 3]
    assert line.first is None


async def test_who_was_first_before_stands_in_front_of_who_came_later() -> None:
    line = Line()
    with line.place(2) as later:
        assert later.first
        with line.place(1) as refused:
            assert refused.first
            assert not later.first
        assert later.first


async def test_a_cancelled_wait_leaves_no_place_taken() -> None:
    line, passed, gate = Line(), [], asyncio.Event()
    tasks = [asyncio.create_task(pass_through(line, n, passed, gate)) for n in (1, 2, 3)]
    await steps()
    tasks[1].cancel()
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert passed == [1, 3]
    assert len(line) == 0


async def test_a_notice_wakes_all_that_wait_and_nobody_who_comes_later() -> None:
    notice = Notice()
    first = [asyncio.create_task(notice.wait()) for _ in range(3)]
    await steps()
    notice.notify()
    async with asyncio.timeout(5):
        await asyncio.gather(*first)
    later = asyncio.create_task(notice.wait())
    await steps()
    assert not later.done()
    later.cancel()
    await asyncio.gather(later, return_exceptions=True)
    notice.notify()  # nobody is left


async def test_a_notice_ends_a_wait_by_its_time_too() -> None:
    async with asyncio.timeout(5):
        await Notice().wait(0.001)


async def test_all_are_woken_when_the_consumer_stops() -> None:
    line, woken = Line(), []

    async def wait(number: int) -> None:
        with line.place(number) as place:
            await place.notice.wait()
            woken.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await steps()
    line.wake_all()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    assert sorted(woken) == [0, 1, 2]
