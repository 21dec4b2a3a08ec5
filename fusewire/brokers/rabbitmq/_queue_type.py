"""Which type a queue is of: AMQP says so only when it refuses something.

A stream accepts a consumer with `x-stream-offset`. Every other queue refuses it and names its own
type (seen on RabbitMQ 3.10.8 and 4.0.5). So to ask takes no message off a queue, and needs no other
permission than to consume it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from aio_pika.exceptions import ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused

from fusewire.brokers.rabbitmq._workarounds.cancellation import run_to_completion

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel

STREAM = "stream"

_TYPE = re.compile(r"of queue type rabbit_(\w+)_queue")


async def queue_type(channel: AbstractChannel, queue: str, limit: float) -> str | None:
    """Return ``quorum``, ``classic`` or ``stream``; None where RabbitMQ does not say.

    Raises what aio-pika raises where the queue is absent or the connection is lost. The channel is
    of no use then.

    Args:
        channel: one of its own: a refusal closes it.
        queue: the queue's name.
        limit: seconds that it may take.
    """

    async def ignore(_message: Any) -> None:
        """Take no notice: the channel is closed next."""

    underlay = await channel.get_underlay_channel()
    await run_to_completion(underlay.basic_qos(prefetch_count=1, timeout=limit))
    try:
        await run_to_completion(
            underlay.basic_consume(
                queue, ignore, arguments={"x-stream-offset": "next"}, timeout=limit
            )
        )
    except ChannelPreconditionFailed as error:
        named = _TYPE.search(str(error))
        return named[1] if named else None
    except ChannelAccessRefused:
        return None
    return STREAM
