"""Queues that have one active consumer at a time, which AMQP does not show.

A quorum queue with `x-single-active-consumer` refuses every get
(https://www.rabbitmq.com/docs/consumers#single-active-consumer), and that is how it is known.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiormq.exceptions import ChannelLockedResource

from fusewire.brokers.rabbitmq._workarounds.cancellation import run_to_completion
from fusewire.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractChannel

    from fusewire.brokers.message import Message
    from fusewire.brokers.rabbitmq._subscription import RabbitMQSubscription

_ARRIVAL = 1.0
"""Seconds for a message to come that is known to be ready, before another is taken to have it."""


async def is_single(channel: AbstractChannel, queue: str, limit: float) -> bool:
    """Return whether `queue` has one active consumer at a time; the channel is of no use then.

    A queue that has not gives a message, if it has one, until the channel is closed.
    """
    underlay = await channel.get_underlay_channel()
    try:
        await run_to_completion(underlay.basic_get(queue, timeout=limit))
    except ChannelLockedResource:
        return True
    return False


async def peek_as_consumer(
    queue: str,
    channel: AbstractChannel,
    subscribe: Callable[[int], Awaitable[RabbitMQSubscription]],
    *,
    limit: int,
    seconds: float,
) -> list[Message]:
    """Read messages of a queue that refuses gets, by consuming it for a moment.

    Raises:
        BrokerError: another consumer is the active one, and only that one can see them.
    """
    declared = await run_to_completion(channel.declare_queue(queue, passive=True, timeout=seconds))
    wanted = min(limit, declared.declaration_result.message_count or 0)
    if wanted < 1:
        return []
    if declared.declaration_result.consumer_count:
        raise _taken(queue)
    subscription = await subscribe(wanted)
    messages: list[Message] = []
    try:
        async with asyncio.timeout(_ARRIVAL) as patience:
            while len(messages) < wanted:
                messages.append((await subscription.receive()).message)
                patience.reschedule(asyncio.get_running_loop().time() + _ARRIVAL)
    except TimeoutError:
        if not messages:
            raise _taken(queue) from None
    finally:
        await subscription.release()
    return messages


def _taken(queue: str) -> BrokerError:
    return BrokerError(
        f"RabbitMQ shows the messages of {queue!r} to its one active consumer only: stop what "
        "replays them to see them; their number is known all the same"
    )
