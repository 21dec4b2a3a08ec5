"""The event loop hears of all that threads have stored, in order, without waking for each."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from fusewire.brokers import Message, Station
from fusewire.brokers.sqlite import SQLiteBroker
from fusewire.brokers.sqlite._hearing import Hearing
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path


class Told:
    """Counts how often a loop is woken."""

    def __init__(self) -> None:
        self.times = 0
        self.heard: list[int] = []
        loop = asyncio.get_running_loop()

        def tell(wake: Any) -> None:
            self.times += 1
            loop.call_soon_threadsafe(wake)

        self.hearing = Hearing(loop, tell)

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.hearing.add(partial(self.heard.append, number))


async def test_all_is_heard_in_order_and_the_loop_is_woken_once() -> None:
    told = Told()
    threading.Thread(target=told.add, args=range(100)).start()
    await until(lambda: len(told.heard) == 100)
    assert told.heard == list(range(100))
    assert told.times == 1


async def test_what_comes_while_it_rests_is_heard_after_that() -> None:
    told = Told()
    told.add(1)
    await until(lambda: told.heard)
    told.add(2)
    await asyncio.sleep(0)
    assert told.heard == [1]
    await until(lambda: len(told.heard) == 2)
    assert told.times == 1


async def test_after_a_rest_the_loop_is_woken_again() -> None:
    told = Told()
    told.add(1)
    await until(lambda: told.heard)
    await until(lambda: not told.hearing._awake)
    told.add(2)
    await until(lambda: len(told.heard) == 2)
    assert told.times == 2


async def test_one_that_fails_stops_no_other() -> None:
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    told = Told()

    def fail() -> None:
        raise ValueError

    told.hearing.add(fail)
    told.add(1)
    await until(lambda: told.heard)
    told.add(2)
    await until(lambda: len(told.heard) == 2)
    assert isinstance(failed[0]["exception"], ValueError)


async def test_at_its_end_it_hears_what_is_left() -> None:
    told = Told()
    told.add(1)
    await until(lambda: told.heard)
    told.add(2)
    told.hearing.end()
    await asyncio.sleep(0)
    assert told.heard == [1, 2]


async def test_all_is_heard_before_a_broker_is_closed(tmp_path: Path) -> None:
    heard: list[Exception | None] = []
    async with SQLiteBroker(tmp_path / "b.db") as broker:
        await broker.create_queue("orders")

        def publish() -> None:
            for _ in range(20):
                broker.publish_from_thread(
                    Station("orders"), Message(body=b"a"), heard=heard.append
                ).result(30)

        await asyncio.to_thread(publish)
    assert heard == [None] * 20
