"""Messages that AMQP, or its client, can hardly carry or read: none sticks, none harms others."""

from __future__ import annotations

import asyncio
import json
import math
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from aiormq.abc import ChannelFrame
from pamqp.commands import Basic

from fusewire.breaker import BreakerRegistry
from fusewire.brokers import Message, RabbitMQBroker
from fusewire.brokers.rabbitmq import _codec as codec
from fusewire.brokers.rabbitmq._workarounds.direct_deliveries import Delivered
from fusewire.errors import MoveRefusedError
from fusewire.parking import ParkingConsumer
from tests.support.content_headers import (
    CONTENT_TYPE,
    CORRELATION_ID,
    HEADERS,
    TIMESTAMP,
    content_header,
)
from tests.support.messages import drain, numbered, take, until_depth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractChannel

MICROSECONDS = 1_700_000_000_123_456
NOW = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[RabbitMQBroker]:
    async with RabbitMQBroker(amqp_url, timeout=5) as broker:
        yield broker


@pytest.fixture
async def outside(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        yield channel


async def publish_raw(
    outside: AbstractChannel, routing_key: str | bytes, payload: bytes, *, exchange: str = ""
) -> None:
    """Publish the body "body" with the payload of a content header as it is."""
    channel: Any = await outside.get_underlay_channel()
    key = routing_key.encode() if isinstance(routing_key, str) else routing_key
    names = b"".join(bytes([len(name)]) + name for name in (exchange.encode(), key))
    publish = struct.pack(">IH", Basic.Publish.index, 0) + names + b"\0"
    frames = b"".join(
        struct.pack(">BHI", kind, channel.number, len(part)) + part + b"\xce"
        for kind, part in ((1, publish), (2, payload), (3, b"body"))
    )
    raw = ChannelFrame(payload=frames, should_close=False, drain_future=None)
    await channel.write_queue.put(raw)


ODD: dict[str, Any] = {
    "large": 1e300,
    "larger": -1e300,
    "just too large": 3.4028235677973366e38,
    "tiny": 1e-300,
    "infinite": math.inf,
    "less": -math.inf,
    "in a list": [1.5, 1e300, [math.inf]],
    "in a table": {"a": {"b": -math.inf}},
    "many digits": 10**30,
    "less than any": [-(2**63) - 1],
    "long ago": datetime(1900, 1, 2, 3, 4, 5, tzinfo=UTC),
    "precise": datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
}


async def test_header_values_that_amqp_cannot_carry_come_back_as_they_were(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    message = Message(body=b"a", headers=ODD)
    connection = await broker._publishing.connection()

    for _ in range(2):
        await broker.publish(queue_name, message)
        [message] = await drain(broker, queue_name, 1)

    assert message.headers == ODD
    assert await broker._publishing.connection() is connection


async def test_what_is_no_number_comes_back_as_such(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    await broker.create_queue(queue_name)

    await broker.publish(queue_name, Message(body=b"a", headers={"nan": math.nan}))

    [message] = await drain(broker, queue_name, 1)
    value = message.headers["nan"]
    assert isinstance(value, float)
    assert math.isnan(value)


async def test_a_decimal_that_amqp_brought_beside_a_float_is_carried_on(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    headers: Any = {"a": {"decimal": Decimal("1.50"), "float": 0.5}}
    await outside.default_exchange.publish(aio_pika.Message(b"a", headers=headers), queue_name)
    subscription = await broker.subscribe(queue_name, prefetch=1)
    [delivery] = await take(subscription, 1)

    await delivery.move(queue_name, delivery.message)

    [again] = await take(subscription, 1)
    assert again.message.headers == headers


async def test_a_message_that_amqp_cannot_carry_is_refused_and_puts_no_other_in_doubt(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    await broker.publish(queue_name, numbered(0))
    way = broker._publisher._current
    odd = Message(body=b"a", priority=256)

    results = await asyncio.gather(
        *(broker.publish(queue_name, numbered(number)) for number in range(1, 20)),
        broker.publish(queue_name, odd),
        return_exceptions=True,
    )

    assert isinstance(results.pop(), MoveRefusedError)
    assert results == [None] * 19
    assert broker._publisher._current is way
    await until_depth(broker, queue_name, 20)


@pytest.mark.parametrize(
    "damaged", ['{"a":{"$dict":5}}', '{"a":{"$datetime":5}}', "[" * 10_000, "5", '{"a":', ""]
)
async def test_a_message_whose_exact_headers_somebody_damaged_is_received_and_moved(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str, damaged: str
) -> None:
    await broker.create_queue(queue_name)
    headers: Any = {"fusewire-transfer": 1, "a": 0.5, "fusewire-exact": damaged}
    await outside.default_exchange.publish(aio_pika.Message(b"a", headers=headers), queue_name)

    subscription = await broker.subscribe(queue_name, prefetch=1)
    [delivery] = await take(subscription, 1)
    await delivery.move(queue_name, delivery.message)

    [again] = await take(subscription, 1)
    assert again.message.headers == {"a": 0.5}


async def put_aside(broker: RabbitMQBroker, queue: str) -> Message:
    """Consume `queue` until its one message is dead; no handler may see it."""
    handled: list[object] = []

    async def handle(message: object) -> None:
        handled.append(message)

    consumer = ParkingConsumer(broker, queue=queue, handler=handle, registry=BreakerRegistry())
    async with consumer:
        running = asyncio.create_task(consumer.run())
        await until_depth(broker, consumer.topology.dead, 1)
        consumer.stop()
        await asyncio.wait_for(running, 40)
    assert handled == []
    [dead] = await drain(broker, consumer.topology.dead, 1)
    assert dead.headers["fusewire-reason"] == "malformed"
    return dead


async def test_a_message_that_cannot_be_read_at_all_is_dead_as_malformed(
    broker: RabbitMQBroker, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = codec._read

    def fail(delivered: Delivered) -> Message:
        if "fusewire-reason" in (delivered.properties.headers or {}):
            return read(delivered)
        raise RecursionError

    await broker.create_queue(queue_name)
    await broker.publish(queue_name, Message(body=b"body", headers={"a": "kept"}))
    monkeypatch.setattr(codec, "_read", fail)

    dead = await put_aside(broker, queue_name)

    assert dead.body == b"body"
    assert dead.unreadable is None  # it was read once, and is stored in a way that can be
    assert "'a': 'kept'" in str(dead.headers["fusewire-unreadable"])
    assert "RecursionError" in str(dead.headers["fusewire-exception-message"])


@pytest.mark.parametrize("time", [MICROSECONDS, MICROSECONDS * 1000], ids=["micro", "nano"])
async def test_a_time_in_micro_or_nanoseconds_takes_no_connection_with_it(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str, time: int
) -> None:
    await broker.create_queue(queue_name)
    await publish_raw(outside, queue_name, content_header(TIMESTAMP, struct.pack(">Q", time)))
    await until_depth(broker, queue_name, 1)
    subscription = await broker.subscribe(queue_name, prefetch=1)

    [delivery] = await take(subscription, 1)

    assert delivery.message.body == b"body"
    assert delivery.message.timestamp is not None
    assert delivery.message.timestamp.replace(microsecond=0) == NOW
    await delivery.move(queue_name, delivery.message)
    await subscription.release()
    [message] = await drain(broker, queue_name, 1)
    assert message.timestamp == NOW


def table(name: str, value: bytes) -> bytes:
    """Return a table of headers with one value, its kind and bytes as they are."""
    entry = bytes([len(name)]) + name.encode() + value
    return struct.pack(">I", len(entry)) + entry


LATIN_1 = "größer".encode("latin-1")
UNREAD = {
    "correlation_id": content_header(
        CONTENT_TYPE | HEADERS | CORRELATION_ID,
        b"\x04text",
        table("a", b"S\x00\x00\x00\x04kept"),
        bytes([len(LATIN_1)]) + LATIN_1,
    ),
    "headers": content_header(
        CONTENT_TYPE | HEADERS, b"\x04text", table("when", b"T" + struct.pack(">Q", MICROSECONDS))
    ),
    "timestamp": content_header(
        CONTENT_TYPE | TIMESTAMP, b"\x04text", struct.pack(">q", -1_700_000_000)
    ),
}


@pytest.mark.parametrize("name", UNREAD)
async def test_a_message_with_an_unreadable_property_is_dead_lettered_with_what_it_had(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str, name: str
) -> None:
    await broker.create_queue(queue_name)
    await publish_raw(outside, queue_name, UNREAD[name])
    await until_depth(broker, queue_name, 1)
    connections = [await link.connection() for link in (broker._publishing, broker._consuming)]

    dead = await put_aside(broker, queue_name)

    assert (dead.body, dead.content_type) == (b"body", "text")
    assert dead.headers["fusewire-unreadable"] == UNREAD[name][12:]
    assert f"properties cannot be read: {name}" in str(dead.headers["fusewire-exception-message"])
    assert dead.headers.get("a") == ("kept" if name == "correlation_id" else None)
    assert connections == [
        await link.connection() for link in (broker._publishing, broker._consuming)
    ]


def test_a_delivery_is_read_whatever_its_properties_are() -> None:
    properties = Basic.Properties(
        headers={"fusewire-transfer": 1, "fusewire-exact": json.dumps({"$dict": 5})}
    )
    delivered = Delivered(properties, b"a", "", "q", 1, redelivered=False)

    assert codec.from_amqp(delivered).body == b"a"


async def test_a_routing_key_that_is_no_text_is_shown_and_closes_no_connection(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    await (await outside.get_queue(queue_name)).bind("amq.fanout")
    await publish_raw(outside, b"a \xff key", content_header(0), exchange="amq.fanout")

    [read] = await drain(broker, queue_name, 1)

    assert (read.body, read.exchange, read.routing_key) == (b"body", "amq.fanout", r"a \xff key")
