"""What RabbitMQ does to its clients when it is short of memory or patience."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import RabbitMQBroker
from fusewire.errors import BrokerUnavailableError, DeliveryLostError, UnconfirmedError
from tests.support.messages import drain, number_of, numbered, publish_numbered, take, until_depth

if TYPE_CHECKING:
    from tests.support.rabbitmq import OwnRabbitMQ

pytestmark = pytest.mark.long  # for the node that it starts


async def test_a_memory_alarm_stops_publishing_and_not_acknowledging(
    private_rabbitmq: OwnRabbitMQ,
) -> None:
    async with RabbitMQBroker(private_rabbitmq.url, timeout=1) as broker:
        await broker.create_queue("alarm")
        await broker.create_queue("alarm.target")
        await publish_numbered(broker, "alarm", range(3))
        subscription = await broker.subscribe("alarm", prefetch=3)
        first, second, _ = await take(subscription, 3)
        await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.0001")
        try:
            with pytest.raises(UnconfirmedError):
                await first.move("alarm.target", numbered(7))
            await second.done()
            await subscription.release()
            again = await broker.subscribe("alarm", prefetch=3)
            back = await take(again, 2)
            # Not the second: it was acknowledged. Nor was the first taken off: it is in doubt.
            assert [number_of(delivery.message) for delivery in back] == [0, 2]
        finally:
            await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.6")
        # What was in doubt lands after all, and the next publish is none the worse for it.
        await until_depth(broker, "alarm.target", 1)
        await broker.publish("alarm.target", numbered(8))
        landed = await drain(broker, "alarm.target", 2)
        assert [number_of(message) for message in landed] == [7, 8]


async def test_a_message_held_for_too_long_is_given_to_others_and_its_channel_closed(
    private_rabbitmq: OwnRabbitMQ,
) -> None:
    for setting, milliseconds in (("consumer_timeout", 500), ("channel_tick_interval", 300)):
        private_rabbitmq.ctl("eval", f"application:set_env(rabbit, {setting}, {milliseconds}).")
    async with RabbitMQBroker(private_rabbitmq.url, timeout=5) as broker:
        await broker.create_queue("held")
        await broker.create_queue("other")
        await publish_numbered(broker, "held", range(1))
        other = await broker.subscribe("other", prefetch=1)
        subscription = await broker.subscribe("held", prefetch=1)
        [held] = await take(subscription, 1)
        with pytest.raises(BrokerUnavailableError, match=r"(?i)timeout"):
            await asyncio.wait_for(subscription.receive(), 30)
        assert held.lost
        with pytest.raises(DeliveryLostError):
            await held.done()
        assert await drain(broker, "held", 1) == [numbered(0)]
        await publish_numbered(broker, "other", range(1))  # whose channel is none the worse
        [delivery] = await take(other, 1)
        await delivery.done()
