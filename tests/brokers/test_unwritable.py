"""What AMQP cannot carry is refused when it is given, with the name of the property or header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from fusewire.brokers import Message, RabbitMQBroker, Topology
from fusewire.errors import MoveRefusedError
from tests.support.messages import drain, numbered, take, until_depth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HALF = "\ud800"  # half a surrogate pair: UTF-8 has no bytes for it


@pytest.fixture
async def broker(amqp_url: str, queue_name: str) -> AsyncIterator[RabbitMQBroker]:
    async with RabbitMQBroker(amqp_url, timeout=5) as broker:
        await broker.create_queue(queue_name)
        yield broker


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"headers": {"tenant": HALF}}, "header 'tenant'"),
        ({"headers": {HALF: 1}}, "header '.ud800'"),
        ({"headers": {"tags": {1, 2}}}, "header 'tags'"),
        ({"headers": {"deep": {"er": [HALF]}}}, "header 'deep'"),
        ({"content_type": "c" * 256}, "content_type"),
        ({"correlation_id": "c" * 256}, "correlation_id"),
        ({"reply_to": "ü" * 128}, "reply_to"),
        ({"type": HALF}, "message_type"),
        ({"message_id": HALF}, "header 'fusewire-message-id'"),
        ({"priority": 300}, "priority"),
    ],
)
async def test_what_cannot_be_written_is_refused_by_its_name_and_puts_nothing_in_doubt(
    broker: RabbitMQBroker, queue_name: str, given: dict[str, Any], named: str
) -> None:
    with pytest.raises(MoveRefusedError, match=f"not stored.*{named}"):
        await broker.publish(queue_name, Message(body=b"a", **given))
    await broker.publish(queue_name, numbered(1))
    assert await drain(broker, queue_name, 1) == [numbered(1)]


@pytest.mark.parametrize(
    "given",
    [
        {"message_id": "m" * 20_000},
        {"message_id": "größe 支付\r\n\x00"},
        {"headers": {"h" * 129: 1, "ü" * 200: "a\x00b", "": 1, "ü" * 64: 2}},
        {"headers": {"deep": [{"n" * 300: b"bytes"}]}},
        {"correlation_id": "\x00\n", "app_id": "c" * 255},
    ],
)
async def test_what_can_be_written_comes_back_as_it_was(
    broker: RabbitMQBroker, queue_name: str, given: dict[str, Any]
) -> None:
    message = Message(body=b"a", routing_key=queue_name, **given)
    await broker.publish(queue_name, message)
    assert await drain(broker, queue_name, 1) == [message]


async def test_a_header_with_a_name_that_only_the_broker_may_give_is_moved_and_kept(
    broker: RabbitMQBroker, amqp_url: str, queue_name: str
) -> None:
    topology = Topology(queue_name)
    await broker.prepare(topology)
    # With our prefix it is longer than a header may be.
    joke: dict[str, Any] = {"x-last-death-" + "q" * 100: 1}
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"a", headers=joke), queue_name)
    [delivery] = await take(await broker.subscribe(queue_name, prefetch=1), 1)
    await delivery.move(topology.dead, delivery.message)
    await until_depth(broker, topology.dead, 1)
    [dead] = await drain(broker, topology.dead, 1)
    assert dead.headers == joke
