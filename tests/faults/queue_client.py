"""An outside client: what it does with the queues and sees in them. It knows no Fusewire."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

import aio_pika
from aio_pika.exceptions import AMQPError

from fusewire.brokers import Topology
from fusewire.brokers.rabbitmq import Layout
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.testing.faults import Place
from tests.faults.armed_worker import DELAY_TIERS, LANE
from tests.support.amqp import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aio_pika.abc import AbstractChannel, AbstractConnection, HeadersType

T = TypeVar("T")

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
_LIMIT = 90.0  # seconds for a broker that was killed to answer again
_AT_A_TIME = 500  # publishes that wait for their confirm


def queues(source: str) -> dict[str, Place]:
    """Return the queues of a worker, and what a message in each of them is."""
    layout = Layout(Topology(source, (LANE,), DELAY_TIERS))
    return {
        source: Place.SOURCE,
        **{layout.parked(lane): Place.PARKED for lane in layout.topology.lanes},
        **{layout.delay(tier): Place.DELAYED for tier in DELAY_TIERS},
        layout.dead: Place.DEAD,
    }


class QueueClient:
    """Connects when needed, and again after the broker was away. Close it at the end.

    Args:
        url: where RabbitMQ is.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AbstractConnection | None = None

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _with_channel(self, do: Callable[[AbstractChannel], Awaitable[T]]) -> T:
        """Do something on a channel of its own, and again if the connection is lost meanwhile."""
        end = time.monotonic() + _LIMIT
        while True:
            try:
                async with asyncio.timeout(_LIMIT):
                    if self._connection is None or self._connection.is_closed:
                        self._connection = await connect(self._url)
                    async with self._connection.channel() as channel:
                        return await do(channel)
            except (AMQPError, OSError, RuntimeError):
                if time.monotonic() > end:
                    raise
                if self._connection is not None:
                    await self._connection.close()
                await asyncio.sleep(0.2)

    async def declare(self, queue: str, arguments: dict[str, Any] | None = None) -> None:
        """Declare a queue: a quorum queue, unless `arguments` say otherwise."""
        await self._with_channel(
            lambda channel: channel.declare_queue(
                queue, durable=True, arguments=QUORUM if arguments is None else arguments
            )
        )

    async def clear_away(self, source: str, exchange: str) -> None:
        """Delete a source queue, the queues derived from it, and its exchange."""

        async def delete(channel: AbstractChannel) -> None:
            for queue in queues(source):
                await channel.queue_delete(queue)
            await channel.exchange_delete(exchange)

        await self._with_channel(delete)

    async def delete(self, queue: str, make_again: dict[str, Any] | None = None) -> None:
        """Delete a queue with its messages; declare it again at once if there are arguments."""

        async def delete(channel: AbstractChannel) -> None:
            await channel.queue_delete(queue)
            if make_again is not None:
                await channel.declare_queue(queue, durable=True, arguments=make_again)

        await self._with_channel(delete)

    async def order(self, queue: str, references: Sequence[str], headers: HeadersType) -> None:
        """Publish orders as a shop does, and return when all are confirmed."""

        async def publish(channel: AbstractChannel) -> None:
            for first in range(0, len(references), _AT_A_TIME):
                batch = references[first : first + _AT_A_TIME]
                await asyncio.gather(
                    *(
                        channel.default_exchange.publish(_order(reference, headers), queue)
                        for reference in batch
                    )
                )

        await self._with_channel(publish)

    async def get_and_requeue(self, queue: str) -> None:
        """Get a message and requeue it, which marks it as redelivered."""

        async def once(channel: AbstractChannel) -> None:
            declared = await channel.declare_queue(queue, passive=True)
            message = await declared.get(timeout=_LIMIT)
            await message.nack(requeue=True)

        await self._with_channel(once)

    async def ready(self, queue: str) -> list[str]:
        """Return the references of the messages that are ready, and leave them there."""

        async def look(channel: AbstractChannel) -> list[str]:
            declared = await channel.declare_queue(queue, passive=True)
            found = []
            while (message := await declared.get(fail=False)) is not None:
                found.append(ChargeRequest.FromString(message.body).reference)
            return found

        return await self._with_channel(look)

    async def count(self, queue: str) -> int:
        """Count the messages that are ready."""

        async def look(channel: AbstractChannel) -> int:
            declared = await channel.declare_queue(queue, passive=True)
            return int(declared.declaration_result.message_count or 0)

        return await self._with_channel(look)

    async def empty(self, source: str) -> bool:
        """Return whether nothing is ready in a source queue and its own, except the dead queue."""
        passing = [queue for queue, place in queues(source).items() if place is not Place.DEAD]
        return not any([await self.count(queue) for queue in passing])

    async def purge(self, queue: str) -> None:
        """Delete the messages that are ready."""

        async def empty(channel: AbstractChannel) -> None:
            declared = await channel.declare_queue(queue, passive=True)
            await declared.purge()

        await self._with_channel(empty)


def _order(reference: str, headers: HeadersType) -> aio_pika.Message:
    body = ChargeRequest(
        account="shop", amount_cents=100, currency="EUR", reference=reference
    ).SerializeToString()
    return aio_pika.Message(
        body,
        headers=headers,
        message_id=reference,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
