"""Headers that fill a frame: the connection that carries them lives, and they are kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.brokers import Message, RabbitMQBroker, Topology
from fusewire.parking import ParkingConsumer, Reject
from tests.support.messages import FULL, drain, take
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FRAME = 131_064  # bytes that a frame carries, as RabbitMQ is configured by default


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[RabbitMQBroker]:
    async with RabbitMQBroker(amqp_url, timeout=5) as broker:
        yield broker


def sized(size: int, **properties: Any) -> Message:
    """Make a message of the first example's kind, with so many bytes more of headers."""
    headers = {**FULL.headers, "long": "ü" * (size // 2)}
    return Message(body=b"body", headers=headers, message_id="m", **properties)


@pytest.mark.parametrize("size", [60_000, 120_000, 124_000, 130_000, 131_000, 400_000])
async def test_headers_of_any_length_come_back_as_they_were(
    broker: RabbitMQBroker, queue_name: str, size: int
) -> None:
    message = sized(size, exchange="events", routing_key="orders")
    await broker.create_queue(queue_name)
    connection = await broker._publishing.connection()

    await broker.publish(queue_name, message)

    assert await drain(broker, queue_name, 1) == [message]
    assert await broker._publishing.connection() is connection


async def test_long_headers_survive_a_delay(broker: RabbitMQBroker, queue_name: str) -> None:
    topology = Topology(queue_name, delays=(0.05, 0.2))
    await broker.create_queue(queue_name)
    await broker.prepare(topology)
    message = sized(FRAME - 10_000)
    for _ in range(3):
        await broker.publish(topology.source, message, delay=0.05)
        subscription = await broker.subscribe(queue_name, prefetch=1)
        [delivery] = await take(subscription, 1)
        assert delivery.message == message
        message = delivery.message
        await delivery.done()
        await subscription.release()


async def test_a_message_that_fills_its_frame_is_dead_lettered_with_all_its_headers(
    broker: RabbitMQBroker, amqp_url: str, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    headers: dict[str, Any] = {"a": "x" * 130_900}
    async with await aio_pika.connect(amqp_url) as outsider:
        channel = await outsider.channel()
        message = aio_pika.Message(b"body", headers=headers, delivery_mode=2, message_id="m")
        await channel.default_exchange.publish(message, queue_name)

    async def reject(_: Any) -> None:
        raise Reject("ü" * 100_000)

    consumer = ParkingConsumer(broker, queue=queue_name, handler=reject, registry=BreakerRegistry())
    async with consumer:
        connections = [await link.connection() for link in (broker._publishing, broker._consuming)]
        running = asyncio.create_task(consumer.run())

        async def is_dead() -> bool:
            return await broker.depth(consumer.topology.dead) == 1

        await until(is_dead)
        consumer.stop()
        await asyncio.wait_for(running, 40)
        assert connections == [
            await link.connection() for link in (broker._publishing, broker._consuming)
        ]
    [dead] = await drain(broker, consumer.topology.dead, 1)
    assert (dead.body, dead.message_id, dead.headers["a"]) == (b"body", "m", headers["a"])
    assert dead.headers["fusewire-operation-id"] == "m"
    assert "ü" in str(dead.headers["fusewire-exception-message"])


async def test_headers_in_the_body_that_somebody_damaged_leave_the_message_as_it_is(
    broker: RabbitMQBroker, amqp_url: str, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    damaged = [-1, 3, 10_000, "4", None, True]
    async with await aio_pika.connect(amqp_url) as outsider:
        channel = await outsider.channel()
        for size in damaged:
            headers: dict[str, Any] = {"fusewire-transfer": 1, "fusewire-headers-in-body": size}
            message = aio_pika.Message(b"\x00\x00\x00\x09body", headers=headers)
            await channel.default_exchange.publish(message, queue_name)

    messages = await drain(broker, queue_name, len(damaged))

    assert {message.body for message in messages} == {b"\x00\x00\x00\x09body"}
