"""Where a move can break, and where the message is then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from fusewire.brokers import Message, RabbitMQBroker, Topology
from fusewire.brokers.rabbitmq import Layout
from fusewire.errors import BrokerError, MoveRefusedError, UnconfirmedError
from fusewire.testing.faults import Drop
from tests.support.messages import drain, number_of, numbered, publish_numbered, take, until_depth

if TYPE_CHECKING:
    from collections.abc import Callable

    from aio_pika.abc import AbstractChannel

    from fusewire.testing.faults import FaultProxy


@pytest.fixture
async def topology(broker: RabbitMQBroker, queue_name: str, forget_queue: Any) -> Topology:
    topology = Topology(queue_name, delays=(0.05, 0.1, 60.0))
    for queue in Layout(topology).derived:
        forget_queue(queue)
    await broker.create_queue(queue_name)
    await broker.prepare(topology)
    return topology


async def test_a_publish_that_does_not_reach_the_broker_leaves_the_message_where_it_was(
    broker: RabbitMQBroker, far_broker: RabbitMQBroker, proxy: FaultProxy, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(1))
    [delivery] = await take(await far_broker.subscribe(topology.source, prefetch=1), 1)
    proxy.refuse()
    with pytest.raises(BrokerError):
        await delivery.move(topology.dead, delivery.message)
    assert await drain(broker, topology.source, 1) == [numbered(0)]
    await until_depth(broker, topology.dead, 0)


async def test_a_confirm_that_is_lost_leaves_the_original_unacknowledged(
    broker: RabbitMQBroker, far_broker: RabbitMQBroker, proxy: FaultProxy, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(1))
    subscription = await far_broker.subscribe(topology.source, prefetch=1)
    [delivery] = await take(subscription, 1)
    proxy.drop(Drop.CONFIRMS)
    with pytest.raises(UnconfirmedError, match="may or may not be stored"):
        await delivery.move(topology.dead, delivery.message)
    assert not delivery.lost
    await subscription.release()
    assert await drain(broker, topology.source, 1) == [numbered(0)]
    assert await drain(broker, topology.dead, 1) == [numbered(0)]  # the duplicate that may be


async def test_an_acknowledgement_that_is_lost_leaves_a_copy_that_redelivered_does_not_tell(
    broker: RabbitMQBroker, far_broker: RabbitMQBroker, proxy: FaultProxy, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(1))
    [delivery] = await take(await far_broker.subscribe(topology.source, prefetch=1), 1)
    proxy.drop(Drop.ACKNOWLEDGEMENTS)
    await delivery.move(topology.dead, delivery.message)
    proxy.cut()

    [original] = await take(await broker.subscribe(topology.source, prefetch=1), 1)
    [copy] = await take(await broker.subscribe(topology.dead, prefetch=1), 1)
    assert (original.redelivered, copy.redelivered) == (True, False)
    assert original.message == copy.message  # and with it the identity, which tells


async def test_a_refused_move_can_be_made_again_with_the_delivery_in_flight(
    broker: RabbitMQBroker, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(1))
    [delivery] = await take(await broker.subscribe(topology.source, prefetch=1), 1)
    for _ in range(3):
        with pytest.raises(MoveRefusedError):
            await delivery.move(f"{topology.source}-missing", delivery.message)
    await delivery.move(topology.dead, delivery.message)
    assert await drain(broker, topology.dead, 1) == [numbered(0)]
    await until_depth(broker, topology.source, 0)


BROKERS_OWN: dict[str, Any] = {
    "x-death": [{"count": 1, "queue": "q", "reason": "expired"}],
    "x-first-death-exchange": "",
    "x-first-death-queue": "q",
    "x-first-death-reason": "expired",
    "x-last-death-exchange": "",
    "x-last-death-queue": "q",
    "x-last-death-reason": "expired",
    "x-delivery-count": 19,
    "x-acquired-count": 19,
}


async def test_the_brokers_own_headers_are_never_sent_back_to_it_and_all_are_kept(
    broker: RabbitMQBroker, outside: AbstractChannel, topology: Topology
) -> None:
    headers = {**BROKERS_OWN, "x-tenant": "blue", "traceparent": "00-1-2-00"}
    await outside.default_exchange.publish(aio_pika.Message(b"a", headers=headers), topology.source)
    [delivery] = await take(await broker.subscribe(topology.source, prefetch=1), 1)
    counts = {"x-delivery-count", "x-acquired-count"}  # the delivery's, not the message's
    kept = {name: value for name, value in headers.items() if name not in counts}
    assert delivery.message.headers == kept
    await delivery.move(topology.dead, delivery.message)

    copy = await (await outside.get_queue(Layout(topology).dead)).get()
    added = copy.headers.pop("x-delivery-count", 0)  # by RabbitMQ 3.10, and not ours
    assert added == 0
    assert BROKERS_OWN.keys().isdisjoint(copy.headers)
    assert copy.headers["x-tenant"] == "blue"
    assert copy.headers["fusewire-x-first-death-queue"] == "q"
    await copy.reject(requeue=True)
    [dead] = await drain(broker, topology.dead, 1)
    assert dead.headers == kept


async def test_our_own_delays_are_no_part_of_what_befell_a_message_and_a_shovels_way_is(
    broker: RabbitMQBroker,
    outside: AbstractChannel,
    topology: Topology,
    queue_name: str,
    forget_queue: Callable[[str], None],
) -> None:
    wait = f"{queue_name}.wait"
    forget_queue(wait)
    await outside.declare_queue(
        wait,
        durable=True,
        arguments={
            "x-message-ttl": 20,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue_name,
        },
    )

    def ways(message: Message) -> list[str]:
        deaths: Any = message.headers.get("x-death")
        return [death["queue"] for death in deaths] if isinstance(deaths, list) else []

    await outside.default_exchange.publish(aio_pika.Message(b"a"), wait)
    subscription = await broker.subscribe(queue_name, prefetch=1)
    [delivery] = await take(subscription, 1)
    first = delivery.message
    assert ways(first) == [wait]
    for _ in range(2):
        await delivery.move(topology.source, delivery.message, delay=0.05)
        [delivery] = await take(subscription, 1)
        assert delivery.message == first
    await delivery.move(wait, delivery.message)  # as a shovel would, with all its headers
    [delivery] = await take(subscription, 1)
    assert ways(delivery.message) == [wait, wait]
    assert delivery.message.headers["x-first-death-queue"] == wait
    await delivery.move(topology.source, delivery.message, delay=0.05)
    [delivery] = await take(subscription, 1)
    assert ways(delivery.message) == [wait, wait]
    await delivery.done()
    await subscription.release()


async def test_a_quorum_queue_counts_how_often_a_message_was_returned(
    broker: RabbitMQBroker, outside: AbstractChannel, topology: Topology
) -> None:
    forged = aio_pika.Message(b"a", headers={"x-delivery-count": 9})
    await outside.default_exchange.publish(forged, topology.source)
    seen = []
    for _ in range(4):
        subscription = await broker.subscribe(topology.source, prefetch=1)
        [delivery] = await take(subscription, 1)
        seen.append(delivery.returned)
        await subscription.release()
    assert seen == [0, 1, 2, 3]
    assert delivery.counts_returns


async def test_of_a_classic_queue_it_is_known_only_that_a_message_was_returned(
    broker: RabbitMQBroker,
    outside: AbstractChannel,
    forget_queue: Callable[[str], None],
    queue_name: str,
) -> None:
    queue = f"{queue_name}.classic"
    forget_queue(queue)
    await outside.declare_queue(queue, durable=True)
    await broker.publish(queue, numbered(1))
    seen = []
    for _ in range(3):
        subscription = await broker.subscribe(queue, prefetch=1)
        [delivery] = await take(subscription, 1)
        seen.append((delivery.returned, delivery.counts_returns))
        await subscription.release()
    assert seen == [(0, False), (1, False), (1, False)]


@pytest.mark.parametrize("header", ["CC", "BCC"])
async def test_a_copy_goes_to_one_queue_though_the_original_went_to_more(
    broker: RabbitMQBroker,
    outside: AbstractChannel,
    topology: Topology,
    forget_queue: Callable[[str], None],
    header: str,
) -> None:
    another = f"{topology.source}.another"
    forget_queue(another)
    await broker.create_queue(another)
    await outside.default_exchange.publish(
        aio_pika.Message(b"a", headers={header: [another]}), topology.source
    )
    await until_depth(broker, another, 1)  # the trap: the header routes
    [delivery] = await take(await broker.subscribe(topology.source, prefetch=1), 1)
    await delivery.move(topology.dead, delivery.message)
    await until_depth(broker, topology.dead, 1)
    await until_depth(broker, another, 1)


async def test_a_message_that_goes_round_several_delay_queues_again_and_again_does_not_vanish(
    broker: RabbitMQBroker, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(1))
    subscription = await broker.subscribe(topology.source, prefetch=1)
    for tier in (0.05, 0.1) * 3:
        [delivery] = await take(subscription, 1)
        await delivery.move(topology.source, delivery.message, delay=tier)
    [delivery] = await take(subscription, 1)
    assert delivery.message == numbered(0)


async def test_a_short_delay_does_not_wait_behind_a_long_one(
    broker: RabbitMQBroker, outside: AbstractChannel, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(2))
    subscription = await broker.subscribe(topology.source, prefetch=2)
    first, second = await take(subscription, 2)
    await first.move(topology.source, first.message, delay=60.0)
    await second.move(topology.source, second.message, delay=0.05)
    [back] = await take(subscription, 1)
    assert number_of(back.message) == 1
    waiting = await (await outside.get_queue(Layout(topology).delay(60.0), ensure=False)).get()
    assert waiting.expiration is None  # the time to live is the queue's
    await waiting.reject(requeue=True)


async def test_a_message_back_from_a_delay_queue_is_what_it_was_published_as(
    broker: RabbitMQBroker, outside: AbstractChannel, topology: Topology
) -> None:
    exchange = await outside.declare_exchange(f"{topology.source}-e", "topic", auto_delete=True)
    source = await outside.get_queue(topology.source)
    await source.bind(exchange, "orders.*")
    await exchange.publish(aio_pika.Message(b"a", message_id="m-1"), "orders.eu")
    subscription = await broker.subscribe(topology.source, prefetch=1)
    [delivery] = await take(subscription, 1)
    await delivery.move(topology.source, delivery.message, delay=0.05)
    [back] = await take(subscription, 1)
    await subscription.release()
    assert back.message == delivery.message
    assert (back.message.exchange, back.message.routing_key) == (exchange.name, "orders.eu")
    assert back.message.message_id == "m-1"

    raw = await source.get()
    assert (raw.exchange, raw.routing_key) == ("", topology.source)  # the trap
    await raw.ack()


async def test_a_publish_and_what_it_moves_are_on_connections_of_their_own(
    broker: RabbitMQBroker, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(2))
    subscription = await broker.subscribe(topology.source, prefetch=2)
    first, second = await take(subscription, 2)
    await broker._publishing.close()
    await first.done()  # would not go through on a connection that is gone
    await asyncio.wait_for(second.move(topology.dead, second.message), 10)
    await subscription.release()
    await until_depth(broker, topology.source, 0)
