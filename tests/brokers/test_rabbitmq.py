"""What RabbitMQ is asked for, seen by a client that is not ours."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from aio_pika.exceptions import ChannelPreconditionFailed
from aiormq.channel import Channel

from fusewire.brokers import Message, RabbitMQBroker, Topology
from fusewire.brokers.rabbitmq import Layout, queue_arguments
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    MoveRefusedError,
    QueueNotFoundError,
    SettingsError,
    UnconfirmedError,
)
from tests.support.messages import drain, publish_numbered, until_depth
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@asynccontextmanager
async def outsider(url: str) -> AsyncIterator[Any]:
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        yield channel


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[RabbitMQBroker]:
    async with RabbitMQBroker(amqp_url, timeout=5) as broker:
        yield broker


async def test_what_is_stored_survives_a_restart_and_never_expires(
    broker: RabbitMQBroker, amqp_url: str, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    await broker.publish(queue_name, Message(body=b"a", message_id="m"))
    async with outsider(amqp_url) as channel:
        queue = await channel.get_queue(queue_name)
        message = await queue.get()
        await message.ack()
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert message.expiration is None
    assert message.message_id != "m"  # a transfer has an id of its own


def test_delayed_messages_are_dead_lettered_at_least_once_and_parked_ones_never() -> None:
    topology = Topology("q", ("payments",), (1.0,))
    arguments = queue_arguments(Layout(topology), (3, 10, 8))
    delay = arguments["q.delay.1000"]
    assert delay["x-dead-letter-strategy"] == "at-least-once"
    assert delay["x-overflow"] == "reject-publish"
    assert delay["x-dead-letter-routing-key"] == "q"
    for queue in ("q.parked.payments", "q.parked.other"):
        assert arguments[queue] == {"x-queue-type": "quorum", "x-overflow": "reject-publish"}
    assert arguments["q.dead"] == {"x-queue-type": "quorum", "x-overflow": "reject-publish"}


def test_from_version_4_on_what_is_kept_has_no_delivery_limit() -> None:
    arguments = queue_arguments(Layout(Topology("q")), (4, 0, 5))
    assert arguments["q.parked.other"]["x-delivery-limit"] == -1
    assert arguments["q.dead"]["x-delivery-limit"] == -1


async def test_queues_are_made_as_they_should_be(
    broker: RabbitMQBroker, amqp_url: str, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    topology = Topology(queue_name)
    await broker.prepare(topology)
    await broker.prepare(topology)  # passive where they exist
    async with outsider(amqp_url) as channel:
        await channel.declare_queue(str(topology.dead), passive=True)
        classic = {"x-overflow": "reject-publish"}
        with pytest.raises(ChannelPreconditionFailed, match="quorum"):
            await channel.declare_queue(str(topology.dead), durable=True, arguments=classic)


async def test_a_queue_made_otherwise_by_its_owner_is_left_as_it_is(
    broker: RabbitMQBroker, amqp_url: str, queue_name: str
) -> None:
    async with outsider(amqp_url) as channel:
        await channel.declare_queue(queue_name, durable=True)
        await channel.declare_queue(f"{queue_name}.dead", durable=True)  # classic
    await broker.prepare(Topology(queue_name))


async def test_acknowledging_goes_on_while_publishing_is_blocked(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    await broker.publish(queue_name, Message(body=b"a"))
    subscription = await broker.subscribe(queue_name, prefetch=1)
    delivery = await subscription.receive()
    await broker._publishing.close()  # as good as blocked: nothing of it is left
    await delivery.done()
    await subscription.release()
    await until_depth(broker, queue_name, 0)


async def test_a_deleted_queue_ends_its_subscription(
    broker: RabbitMQBroker, amqp_url: str, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    subscription = await broker.subscribe(queue_name, prefetch=1)
    waiting = asyncio.create_task(subscription.receive())
    async with outsider(amqp_url) as channel:
        await channel.queue_delete(queue_name)
    with pytest.raises(BrokerUnavailableError, match="cancelled"):
        await asyncio.wait_for(waiting, 10)
    with pytest.raises(QueueNotFoundError, match="deleted"):
        await broker.subscribe(queue_name, prefetch=1)


async def test_a_queue_deleted_and_made_again_at_once_ends_its_subscription(
    broker: RabbitMQBroker, amqp_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # RabbitMQ 3.10 says nothing of it: the consumer's channel stays open and gets nothing.
    monkeypatch.setattr("fusewire.brokers.rabbitmq._subscription._LOOK", 0.1)
    await broker.create_queue(queue_name)
    subscription = await broker.subscribe(queue_name, prefetch=1)
    async with outsider(amqp_url) as channel:
        await channel.queue_delete(queue_name)
        await channel.declare_queue(queue_name, durable=True, arguments={"x-queue-type": "quorum"})
    await publish_numbered(broker, queue_name, range(3))
    with pytest.raises(BrokerError):
        await asyncio.wait_for(subscription.receive(), 20)
    await subscription.release()
    assert len(await drain(broker, queue_name, 3)) == 3


async def test_a_broker_that_was_left_is_not_connected_again_by_its_subscriptions(
    amqp_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusewire.brokers.rabbitmq._subscription._LOOK", 0.1)
    async with RabbitMQBroker(amqp_url) as broker:
        await broker.create_queue(queue_name)
        subscription = await broker.subscribe(queue_name, prefetch=1)  # and not released
    watching = subscription._watching
    assert watching is not None
    await until(lambda: watching.done)  # it has looked for the last time
    assert broker._consuming._connection is None or broker._consuming._connection.is_closed


async def test_a_confirm_that_does_not_come_is_reported_and_the_next_publish_works(
    amqp_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RabbitMQBroker(amqp_url, timeout=0.5) as broker:
        await broker.create_queue(queue_name)
        await broker.publish(queue_name, Message(body=b"a"))

        async def deaf(*_: Any) -> None:
            return None

        with monkeypatch.context() as patch:
            patch.setattr(Channel, "_on_confirm_frame", deaf)
            with pytest.raises(UnconfirmedError, match="may or may not be stored"):
                await broker.publish(queue_name, Message(body=b"b"))
        await broker.publish(queue_name, Message(body=b"c"))

        async def stored() -> bool:
            return await broker.depth(queue_name) == 3  # the unconfirmed one too

        await until(stored)


async def test_a_cancelled_publish_does_not_leave_its_channel_in_use(
    broker: RabbitMQBroker, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(*_: Any) -> None:
        return None

    await broker.create_queue(queue_name)
    with monkeypatch.context() as patch:
        patch.setattr(Channel, "_on_confirm_frame", deaf)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await broker.publish(queue_name, Message(body=b"a"))
    await broker.publish(queue_name, Message(body=b"b"))


async def test_a_full_queue_refuses_and_the_original_stays_in_flight(
    broker: RabbitMQBroker, amqp_url: str, queue_name: str
) -> None:
    async with outsider(amqp_url) as channel:
        arguments = {
            "x-queue-type": "quorum",
            "x-max-length": 1,
            "x-overflow": "reject-publish",
        }
        await channel.declare_queue(f"{queue_name}.dead", durable=True, arguments=arguments)
    await broker.create_queue(queue_name)
    await broker.publish(queue_name, Message(body=b"a"))
    subscription = await broker.subscribe(queue_name, prefetch=1)
    delivery = await subscription.receive()
    refused = 0
    for _ in range(20):  # a quorum queue may take one or two more than its limit
        try:
            await broker.publish(f"{queue_name}.dead", Message(body=b"x"))
        except MoveRefusedError:
            refused += 1
    assert refused
    with pytest.raises(MoveRefusedError, match="full"):
        await delivery.move(f"{queue_name}.dead", delivery.message)
    await subscription.release()

    async def back() -> bool:
        return await broker.depth(queue_name) == 1

    await until(back)


async def test_a_message_whose_identity_was_damaged_is_received_all_the_same(
    broker: RabbitMQBroker, amqp_url: str, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    async with outsider(amqp_url) as channel:
        for exact in ('{"a":{"$bytes":5}}', "{", "[" * 5000, "17"):
            headers: dict[str, Any] = {"fusewire-transfer": 1, "fusewire-exact": exact, "a": 1}
            message = aio_pika.Message(b"x", headers=headers)
            await channel.default_exchange.publish(message, queue_name)
    subscription = await broker.subscribe(queue_name, prefetch=10)
    for _ in range(4):
        delivery = await asyncio.wait_for(subscription.receive(), 10)
        assert delivery.message.headers["a"] == 1
        await delivery.done()
    await subscription.release()


@pytest.mark.parametrize("name", ["ordérs", "a\nb", "q" * 256, "50%"])
async def test_a_name_that_the_client_cannot_write_is_reported(
    broker: RabbitMQBroker, name: str
) -> None:
    with pytest.raises(SettingsError, match="AMQP client"):
        await broker.create_queue(name)
    with pytest.raises(SettingsError, match="AMQP client"):
        await broker.subscribe(name, prefetch=1)


@pytest.mark.parametrize(
    ("url", "options", "named"),
    [
        ("http://127.0.0.1/", {}, "amqp"),
        ("amqp://127.0.0.1/", {"timeout": 0}, r"timeout must be .*, got 0"),
        ("amqp://127.0.0.1/", {"timeout": float("nan")}, r"timeout must be .*, got nan"),
        ("amqp://user:secret@127.0.0.1:port/", {}, "must be a URL"),
    ],
)
def test_a_wrong_setting_is_reported_without_the_password(
    url: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        RabbitMQBroker(url, **options)
    assert "secret" not in str(caught.value)


async def test_consumers_of_one_queue_delay_by_the_exchanges_that_they_were_prepared_with(
    broker: RabbitMQBroker, queue_name: str, forget_queue: Callable[[str], None]
) -> None:
    plain = Topology(queue_name, delays=(1, 7))
    bound = Topology(queue_name, delays=(1, 30), options={"exchange": "amq.direct"})
    for queue in (*Layout(plain).derived, *Layout(bound).derived):
        forget_queue(queue)
    await broker.create_queue(queue_name)
    await broker.prepare(plain)
    await broker.prepare(bound)
    for delay in (1, 7, 30):
        await broker.publish(queue_name, Message(body=b"", message_id=str(delay)), delay=delay)
