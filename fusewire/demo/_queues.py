"""The demo's queues, with names that no other run has; they are deleted afterwards."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fusewire.brokers import Topology, open_broker
from fusewire.brokers.rabbitmq import Layout
from fusewire.demo._config import LANE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

logger = logging.getLogger("fusewire.demo")

_DELETE_LIMIT = 10.0  # seconds


def is_rabbitmq(address: str) -> bool:
    """Return whether an address is of a RabbitMQ; the embedded broker's are just files."""
    return address.lower().startswith(("amqp://", "amqps://"))


class Queues:
    """The names of one run's source queues."""

    def __init__(self) -> None:
        run = secrets.token_hex(4)
        self.orders = f"fusewire-demo-{run}-orders"
        self.charges = f"fusewire-demo-{run}-charges"


@asynccontextmanager
async def demo_queues(address: str) -> AsyncIterator[Queues]:
    """Create the queue of the orders, and delete all queues of this run after the block.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    queues = Queues()
    async with open_broker(address) as broker:
        await broker.create_queue(queues.orders)
    try:
        yield queues
    finally:
        await delete_queues(address, queues.orders, queues.charges)


async def delete_queues(address: str, *sources: str) -> None:
    """Delete source queues of the demo, and those derived from them; within a limited time.

    Only from a RabbitMQ: an embedded broker is a file that is deleted with its folder.
    """
    if not is_rabbitmq(address):
        return
    # Imported here: the embedded broker does without it.
    import aio_pika  # noqa: PLC0415 - see above
    from aio_pika.exceptions import AMQPError  # noqa: PLC0415 - see above

    names = [name for source in sources for name in Layout(Topology(source, (LANE,))).queues]
    try:
        async with asyncio.timeout(_DELETE_LIMIT):
            connection = await aio_pika.connect(address)
            async with connection, connection.channel() as channel:
                for name in names:
                    await channel.queue_delete(name)
    except (OSError, AMQPError) as error:  # a TimeoutError is an OSError
        logger.warning("the demo's queues could not be deleted (%r): %s", error, ", ".join(names))
