"""Receiving messages in tests: with a limit, so that what does not come fails the test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from fusewire.brokers import Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fusewire.brokers import Broker, Delivery, Station, Subscription

LIMIT = 30.0  # seconds; nothing that these tests wait for takes more than one

FULL = Message(
    body=b"\x00\xff body",
    headers={
        "text": "Grüße, 世界",
        "empty": "",
        "bytes": b"\x00\x80\xff",
        "yes": True,
        "no": False,
        "zero": 0,
        "large": 2**62,
        "negative": -(2**40),
        "real": 0.1,
        "whole real": 2.0,
        "nothing": None,
        "when": datetime(2024, 2, 29, 12, 30, 45, tzinfo=UTC),
        "list": [1, "zwei", [3.5, None], {"four": b"4"}],
        "table": {"a": {"$bytes": "not a tag"}, "ключ": [True]},
        "none in it": {},
        "nobody": [],
    },
    content_type="application/json; charset=utf-8",
    content_encoding="identity",
    message_id="id-1",
    correlation_id="körrelation",
    reply_to="answers",
    type="order.placed",
    app_id="shop",
    timestamp=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
    priority=7,
    exchange="events",
    routing_key="orders.placed.eu",
)
"""A message with every property, and with every kind of header."""


def numbered(number: int) -> Message:
    """Return a message that its number identifies."""
    return Message(body=str(number).encode(), message_id=f"m-{number}")


def number_of(message: Message) -> int:
    """Return the number of a message made by `numbered`."""
    return int(message.body)


async def publish_numbered(broker: Broker, queue: Station | str, numbers: range) -> None:
    """Publish one message for each of `numbers`, in order."""
    for number in numbers:
        await broker.publish(queue, numbered(number))


async def take(subscription: Subscription, count: int) -> list[Delivery]:
    """Receive `count` messages."""
    with anyio.fail_after(LIMIT):
        return [await subscription.receive() for _ in range(count)]


@asynccontextmanager
async def taking(
    subscription: Subscription, count: int
) -> AsyncIterator[asyncio.Task[list[Delivery]]]:
    """Receive `count` messages beside the block; what has not come by its end is given up."""
    task = asyncio.create_task(take(subscription, count))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def drain(broker: Broker, queue: Station | str, count: int) -> list[Message]:
    """Take `count` messages off `queue`, and check that it holds no more."""
    subscription = await broker.subscribe(queue, prefetch=max(count, 1))
    deliveries = await take(subscription, count)
    # At once, so that one frame acknowledges them: of many, RabbitMQ holds some back before a busy
    # quorum queue, and forgets those when the channel is closed.
    await asyncio.gather(*(delivery.done() for delivery in deliveries))
    await subscription.release()
    await until_depth(broker, queue, 0)
    return [delivery.message for delivery in deliveries]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `condition` holds."""
    with anyio.fail_after(LIMIT):
        while not await condition():  # noqa: ASYNC110 (a broker does not announce its depths)
            await anyio.sleep(0.01)


async def until_receivers(broker: Broker, queue: Station | str, count: int) -> None:
    """Wait until `queue` has so many receivers: a broker may count one that has just left."""

    async def is_so() -> bool:
        return await broker.receivers(queue) == count

    await until(is_so)


async def until_depth(broker: Broker, queue: Station | str, depth: int) -> None:
    """Wait until `queue` is as deep: a broker may count what it has just settled."""

    async def is_so() -> bool:
        return await broker.depth(queue) == depth

    await until(is_so)
