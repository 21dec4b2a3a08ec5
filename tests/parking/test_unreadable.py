"""A message that the broker could not read whole is dead as malformed, and holds up nobody."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.brokers import Message, SQLiteBroker
from fusewire.parking import ParkingConsumer
from fusewire.parking._history import MalformedMessageError, from_headers
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from aio_pika.abc import AbstractIncomingMessage


def test_a_record_is_not_read_off_a_message_that_is_not_whole() -> None:
    with pytest.raises(MalformedMessageError, match="half of it is missing"):
        from_headers(Message(body=b"", unreadable="half of it is missing"), operation_id="a")


async def test_a_damaged_row_is_dead_with_what_was_stored_and_the_next_is_handled(
    tmp_path: Path,
) -> None:
    handled: list[bytes] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        handled.append(message.body)

    path = tmp_path / "broker.db"
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        for body in (b"damaged", b"whole"):
            await broker.publish("orders", Message(body=body, message_id=body.decode()))
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("UPDATE messages SET properties = '{\"x' WHERE id = 1")
        consumer = ParkingConsumer(
            broker, queue="orders", handler=handler, registry=BreakerRegistry()
        )
        async with consumer:
            running = asyncio.create_task(consumer.run())
            await until(lambda: handled == [b"whole"])
            consumer.stop()
            await asyncio.wait_for(running, 40)
        [dead] = await broker.peek("orders.dead", limit=5)
    assert dead.body == b"damaged"
    assert dead.headers["fusewire-reason"] == "malformed"
    assert dead.headers["fusewire-unreadable"] == '{"x'
    assert dead.headers["fusewire-exception-message"] == "the stored properties are damaged"
