"""Receiving messages in tests: with a limit, so that what does not come fails the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from fusewire.brokers import Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.brokers import Broker, Delivery, Subscription

LIMIT = 30.0  # seconds; nothing that these tests wait for takes more than one


def numbered(number: int) -> Message:
    """Make a message that is told by its number."""
    return Message(body=str(number).encode(), message_id=f"m-{number}")


def number_of(message: Message) -> int:
    """Return the number of a message made by `numbered`."""
    return int(message.body)


async def publish_numbered(broker: Broker, queue: str, numbers: range) -> None:
    """Publish one message for each of `numbers`, in order."""
    for number in numbers:
        await broker.publish(queue, numbered(number))


async def take(subscription: Subscription, count: int) -> list[Delivery]:
    """Receive `count` messages."""
    with anyio.fail_after(LIMIT):
        return [await subscription.receive() for _ in range(count)]


async def drain(broker: Broker, queue: str, count: int) -> list[Message]:
    """Take `count` messages off `queue`, and check that it holds no more."""
    subscription = await broker.subscribe(queue, prefetch=max(count, 1))
    deliveries = await take(subscription, count)
    for delivery in deliveries:
        await delivery.done()
    await subscription.release()
    await until_depth(broker, queue, 0)
    return [delivery.message for delivery in deliveries]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `condition` holds."""
    with anyio.fail_after(LIMIT):
        while not await condition():  # noqa: ASYNC110 (a broker tells nobody how deep its queues are)
            await anyio.sleep(0.01)


async def until_depth(broker: Broker, queue: str, depth: int) -> None:
    """Wait until `queue` is as deep: a broker may count what it has just settled."""

    async def is_so() -> bool:
        return await broker.depth(queue) == depth

    await until(is_so)
