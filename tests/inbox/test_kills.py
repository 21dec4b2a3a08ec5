"""Rows of the inbox's truth table for a consumer that is killed in the middle of a message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Message, open_broker
from tests.support import inbox_worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.idempotent_places import Database, Place


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=[] if point.endswith("commit") else [pytest.mark.long])
        for point in inbox_worker.POINTS
    ],
)
async def test_a_kill_before_the_commit_leaves_nothing_and_after_it_everything(
    place: Place, database: Database, tmp_path: Path, point: str
) -> None:
    address = f"sqlite:///{tmp_path}/broker.db"
    async with open_broker(address) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", Message(body=b"order", message_id="a"))

    async def until_ended(kill_at: str) -> int:
        with inbox_worker.start(address, "orders", place, database, kill_at) as worker:
            return await asyncio.to_thread(worker.wait, 60)

    assert await until_ended(point) == -9
    committed = point == "after-commit"
    assert database.effects("order") == int(committed)
    assert database.records() == int(committed)
    assert await until_ended("before-effect" if committed else "") == 0
    assert database.effects("order") == 1
    async with open_broker(address) as broker:
        assert await broker.depth("orders") == 0
