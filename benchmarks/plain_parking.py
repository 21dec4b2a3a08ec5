"""Parking as a careful user of aio-pika writes it, without Fusewire: what we are measured against.

It gives the guarantees of a move: persistent, mandatory, confirmed before the original is
acknowledged, a fresh message id, a limit on every wait, a connection each to publish and to
consume. It has no breaker, no attempts, no dead queue, and does not see to it that a circuit is let
alone.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import aio_pika

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractIncomingMessage

    Handler = Callable[[AbstractIncomingMessage], Awaitable[None]]

_LIMIT = 10.0  # seconds for one operation


async def park(
    url: str, source: str, parked: str, *, prefetch: int, note: Callable[[], None]
) -> AsyncExitStack:
    """Move what comes in `source` to `parked`; `note` is called for each that is moved."""
    async with AsyncExitStack() as stack:
        publishing = await stack.enter_async_context(await aio_pika.connect(url))
        target = (
            await publishing.channel(publisher_confirms=True, on_return_raises=True)
        ).default_exchange

        async def on_message(message: AbstractIncomingMessage) -> None:
            copy = aio_pika.Message(
                message.body,
                headers={
                    **message.headers,
                    "original-id": message.message_id,
                    "original-exchange": message.exchange,
                    "original-routing-key": message.routing_key,
                },
                content_type=message.content_type,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                message_id=uuid.uuid4().hex,
                timestamp=message.timestamp,
            )
            await target.publish(copy, parked, mandatory=True, timeout=_LIMIT)
            await asyncio.wait_for(message.ack(), _LIMIT)
            note()

        await _consume(stack, url, source, on_message, prefetch)
        return stack.pop_all()


async def handle(
    url: str, queue: str, handler: Handler, *, prefetch: int, note: Callable[[], None]
) -> AsyncExitStack:
    """Pass each message of `queue` to `handler`, and acknowledge it."""

    async def on_message(message: AbstractIncomingMessage) -> None:
        await handler(message)
        await asyncio.wait_for(message.ack(), _LIMIT)
        note()

    async with AsyncExitStack() as stack:
        await _consume(stack, url, queue, on_message, prefetch)
        return stack.pop_all()


async def _consume(
    stack: AsyncExitStack, url: str, queue: str, on_message: Handler, prefetch: int
) -> None:
    connection = await stack.enter_async_context(await aio_pika.connect(url))
    # Closed before the connection: RabbitMQ may drop the last acknowledgements of a connection that
    # is closed at once.
    channel = await stack.enter_async_context(connection.channel())
    await channel.set_qos(prefetch_count=prefetch)
    await (await channel.get_queue(queue)).consume(on_message, timeout=_LIMIT)
