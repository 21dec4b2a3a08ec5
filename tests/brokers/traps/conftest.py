"""What the tests of traps share: our broker, a client that is not ours, and a proxy between."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aio_pika
import pytest

from fusewire.brokers import RabbitMQBroker
from fusewire.testing.faults import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractChannel


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[RabbitMQBroker]:
    async with RabbitMQBroker(amqp_url, timeout=5) as broker:
        yield broker


@pytest.fixture
async def outside(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    """Provide a channel as aio-pika makes them by default."""
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        yield channel


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[FaultProxy]:
    parts = urlsplit(amqp_url)
    async with FaultProxy(parts.hostname or "localhost", parts.port or 5672) as proxy:
        yield proxy


@pytest.fixture
def far_url(amqp_url: str, proxy: FaultProxy) -> str:
    """Provide the address by way of the proxy."""
    parts = urlsplit(amqp_url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials}{at}127.0.0.1:{proxy.port}").geturl()


@pytest.fixture
async def far_broker(far_url: str, proxy: FaultProxy) -> AsyncIterator[RabbitMQBroker]:
    """Provide a broker that is reached through the proxy, and gives up on an operation soon."""
    async with RabbitMQBroker(far_url, timeout=0.3) as broker:
        yield broker
        proxy.heal()
