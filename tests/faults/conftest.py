"""A payments server to kill, and what another client sees on RabbitMQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from tests.faults.nursing import Nursery
from tests.support.payments import PaymentsProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def payments(tmp_path: Path) -> Iterator[PaymentsProcess]:
    server = PaymentsProcess(tmp_path)
    server.start()
    yield server
    server.close()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path, tmp_path / "nursery.log")
    yield nursery
    nursery.close()


class Outsider:
    """A plain aio-pika client, which knows nothing of Fusewire."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    async def declare(self, queue: str) -> None:
        await self._channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})

    async def order(self, queue: str, reference: str) -> None:
        """Publish an order as a shop would: a persistent message with an id of its own."""
        body = ChargeRequest(
            account="shop", amount_cents=100, currency="EUR", reference=reference
        ).SerializeToString()
        message = aio_pika.Message(
            body, message_id=reference, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        await self._channel.default_exchange.publish(message, queue)

    async def count(self, queue: str) -> int:
        """Count the messages that are ready in a queue."""
        declared = await self._channel.declare_queue(queue, passive=True)
        return int(declared.declaration_result.message_count)


@pytest.fixture
async def outsider(amqp_url: str) -> AsyncIterator[Outsider]:
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        yield Outsider(channel)
