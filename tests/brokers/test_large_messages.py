"""Messages larger than RabbitMQ takes: refused, and no harm to others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Message, RabbitMQBroker
from fusewire.errors import MoveRefusedError, UnconfirmedError
from tests.support.rabbitmq_managed import LARGEST

if TYPE_CHECKING:
    from tests.support.rabbitmq_managed import Managed, VirtualHost

LARGE = Message(body=bytes(LARGEST + 1))


@pytest.fixture(autouse=True)
def _small_limit(managed: Managed) -> None:
    if managed.tls is None:
        pytest.skip("the RabbitMQ that the environment names takes larger messages")


async def test_a_message_that_is_too_large_is_refused_and_not_in_doubt(
    virtual_host: VirtualHost,
) -> None:
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.create_queue("orders")
        with pytest.raises(MoveRefusedError, match=f"max_message_size is {LARGEST}"):
            await broker.publish("orders", LARGE)
        await broker.publish("orders", Message(body=bytes(LARGEST)))


async def test_it_is_sent_once_so_that_it_puts_nobody_else_in_doubt_again(
    virtual_host: VirtualHost,
) -> None:
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.create_queue("orders")
        with pytest.raises(MoveRefusedError):
            await broker.publish("orders", LARGE)
        for _ in range(5):
            large, *small = await asyncio.gather(
                broker.publish("orders", LARGE),
                *(broker.publish("orders", Message(body=b"x")) for _ in range(20)),
                return_exceptions=True,
            )
            assert isinstance(large, MoveRefusedError)
            assert small == [None] * 20


async def test_what_was_in_flight_with_it_is_in_doubt(virtual_host: VirtualHost) -> None:
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.create_queue("orders")
        others = [broker.publish("orders", Message(body=b"x")) for _ in range(20)]
        results = await asyncio.gather(
            *others, broker.publish("orders", LARGE), return_exceptions=True
        )

    assert isinstance(results.pop(), MoveRefusedError)
    assert {type(result) for result in results} <= {type(None), UnconfirmedError}


async def test_the_limit_is_learned_again_from_another_broker(virtual_host: VirtualHost) -> None:
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.create_queue("orders")
        with pytest.raises(MoveRefusedError):
            await broker.publish("orders", LARGE)
        broker._publisher._largest = 10  # as if this broker had taken less
        await broker._publishing.close()
        await broker.publish("orders", Message(body=bytes(LARGEST)))
