"""A thread that waits stores on SQLite without a turn of the event loop, which hears of it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Message, Station
from fusewire.brokers.sqlite import SQLiteBroker
from fusewire.errors import BrokerError, MoveRefusedError
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path


async def test_it_is_stored_while_the_event_loop_stands_still(tmp_path: Path) -> None:
    heard: list[Exception | None] = []
    async with SQLiteBroker(tmp_path / "b.db") as broker:
        await broker.create_queue("orders")
        subscription = await broker.subscribe("orders", prefetch=1)
        receiving = asyncio.create_task(subscription.receive())
        await asyncio.sleep(0)
        stored = threading.Event()

        def publish() -> None:
            message = Message(body=b"a", message_id="a")
            broker.publish_from_thread(Station("orders"), message, heard=heard.append).result(30)
            stored.set()

        thread = threading.Thread(target=publish)
        thread.start()
        assert stored.wait(30)  # on the event loop's own thread, which turns no more meanwhile
        assert heard == []
        thread.join()
        delivery = await asyncio.wait_for(receiving, 30)  # it was woken
        assert (delivery.message.body, heard) == (b"a", [None])
        await delivery.done()
        await subscription.release()


async def test_what_is_refused_is_raised_and_heard(tmp_path: Path) -> None:
    heard: list[Exception | None] = []
    async with SQLiteBroker(tmp_path / "b.db") as broker:
        await broker.create_queue("orders")
        future = broker.publish_from_thread(
            Station("missing"), Message(body=b"a"), heard=heard.append
        )
        with pytest.raises(MoveRefusedError, match="missing"):
            await asyncio.wrap_future(future)
        await until(lambda: heard)
        assert isinstance(heard[0], MoveRefusedError)
        assert await broker.depth("orders") == 0
    with pytest.raises(BrokerError, match="not open"):
        broker.publish_from_thread(Station("orders"), Message(body=b"a"), heard=heard.append)


async def test_a_publish_that_is_cancelled_is_stored_and_wakes_the_receiver(tmp_path: Path) -> None:
    async with SQLiteBroker(tmp_path / "b.db", poll_interval=60, lease=300) as broker:
        await broker.create_queue("orders")
        subscription = await broker.subscribe("orders", prefetch=1)
        receiving = asyncio.create_task(subscription.receive())
        await asyncio.sleep(0)
        publishing = asyncio.create_task(broker.publish("orders", Message(body=b"a")))
        await asyncio.sleep(0)
        publishing.cancel()
        delivery = await asyncio.wait_for(receiving, 30)
        assert delivery.message.body == b"a"
        await delivery.done()
        await subscription.release()
