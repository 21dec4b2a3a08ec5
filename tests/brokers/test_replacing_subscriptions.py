"""A subscription that takes the place of another gets what is published meanwhile.

RabbitMQ takes back what is on its way to a consumer that is cancelled, and marks it as redelivered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Message, RabbitMQBroker
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def broker(amqp_url: str, queue_name: str) -> AsyncIterator[RabbitMQBroker]:
    async with RabbitMQBroker(amqp_url, timeout=20) as broker:
        await broker.create_queue(queue_name)
        yield broker


async def test_the_latest_subscription_gets_all_that_it_has_room_for(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    former = await broker.subscribe(queue_name, prefetch=10)
    later = await broker.subscribe(queue_name, prefetch=10)
    latest = await broker.subscribe(queue_name, prefetch=10)
    for number in range(10):
        await broker.publish(queue_name, Message(body=b"a", message_id=str(number)))
    async with asyncio.timeout(20):
        taken = [await latest.receive() for _ in range(10)]
    assert [each.message.message_id for each in taken] == [str(number) for number in range(10)]
    assert await later.quiesce() == []
    assert await former.quiesce() == []
    for each in (former, later, latest):
        await each.release()


async def test_one_that_takes_no_other_place_shares_with_the_other_consumers(
    amqp_url: str, broker: RabbitMQBroker, queue_name: str
) -> None:
    for _ in range(3):
        await (await broker.subscribe(queue_name, prefetch=1)).release()
    async with RabbitMQBroker(amqp_url, timeout=20) as other:
        mine = await broker.subscribe(queue_name, prefetch=10)
        others = await other.subscribe(queue_name, prefetch=10)
        await until(lambda: _receivers(broker, queue_name, 2))
        for _ in range(10):
            await broker.publish(queue_name, Message(body=b"a"))
        async with asyncio.timeout(20):
            for each in (mine, others):
                for _ in range(5):
                    await (await each.receive()).done()
                await each.release()


async def _receivers(broker: RabbitMQBroker, queue: str, number: int) -> bool:
    return await broker.receivers(queue) == number
