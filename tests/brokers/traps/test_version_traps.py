"""What differs from one RabbitMQ to the next, and what must not differ for messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from aiormq.exceptions import ChannelLockedResource
from pamqp import encode

from fusewire.brokers import RabbitMQBroker, Topology
from fusewire.brokers.rabbitmq import Layout, queue_arguments
from tests.support.messages import (
    drain,
    number_of,
    numbered,
    publish_numbered,
    take,
    until_depth,
    until_receivers,
)

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel

    from tests.support.rabbitmq import RabbitMQ

DEFAULT_LIMIT = 20
"""The delivery limit of quorum queues since RabbitMQ 4.0."""


def has_default_limit(rabbitmq: RabbitMQ) -> bool:
    return int(rabbitmq.version.split(".")[0]) >= 4


@pytest.fixture
def _limited(rabbitmq: RabbitMQ) -> None:
    if not has_default_limit(rabbitmq):
        pytest.skip(f"RabbitMQ {rabbitmq.version} sets no delivery limit of its own")


async def lose_channel(broker: RabbitMQBroker, queue: str) -> None:
    subscription = await broker.subscribe(queue, prefetch=1)
    await take(subscription, 1)
    await subscription.release()


@pytest.mark.usefixtures("_limited")
async def test_a_queue_as_it_comes_drops_a_message_whose_channels_were_closed_too_often(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str
) -> None:
    # The trap, which the audit warns of for source queues.
    await outside.declare_queue(queue_name, durable=True, arguments={"x-queue-type": "quorum"})
    await publish_numbered(broker, queue_name, range(1))
    for _ in range(DEFAULT_LIMIT + 1):
        await until_depth(broker, queue_name, 1)
        await lose_channel(broker, queue_name)
    await until_depth(broker, queue_name, 0)


@pytest.mark.usefixtures("_limited")
@pytest.mark.parametrize("queue", ["parked.other", "dead"])
async def test_a_kept_message_survives_more_looks_and_lost_channels_than_the_default_limit(
    broker: RabbitMQBroker, queue_name: str, queue: str
) -> None:
    await broker.create_queue(queue_name)
    await broker.prepare(Topology(queue_name))
    kept = f"{queue_name}.{queue}"
    await publish_numbered(broker, kept, range(1))
    for _ in range(DEFAULT_LIMIT):
        await until_depth(broker, kept, 1)
        await lose_channel(broker, kept)
        assert await broker.peek(kept, limit=1) == [numbered(0)]
    await until_depth(broker, kept, 1)


async def test_closing_a_channel_counts_towards_a_delivery_limit(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str
) -> None:
    # The trap, on every version: what is held while a connection drops comes nearer to its end.
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": 2}
    await outside.declare_queue(queue_name, durable=True, arguments=arguments)
    await publish_numbered(broker, queue_name, range(1))
    for _ in range(3):
        await until_depth(broker, queue_name, 1)
        await lose_channel(broker, queue_name)
    await until_depth(broker, queue_name, 0)


async def test_a_queue_made_without_a_delivery_limit_is_left_as_it_is(
    broker: RabbitMQBroker, outside: AbstractChannel, rabbitmq: RabbitMQ, queue_name: str
) -> None:
    topology = Topology(queue_name)
    await broker.create_queue(queue_name)
    quorum: dict[str, Any] = {"x-queue-type": "quorum"}
    await outside.declare_queue(Layout(topology).dead, durable=True, arguments=quorum)
    await broker.prepare(topology)
    await broker.publish(topology.dead, numbered(1))
    if has_default_limit(rabbitmq):
        with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed):  # the trap
            await outside.declare_queue(
                Layout(topology).dead, durable=True, arguments={**quorum, "x-delivery-limit": -1}
            )


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("3.10.8", (3, 10, 8)),
        ("3.13.0-rc.1", (3, 13, 0)),
        ("4.0.5+25.g1a2b3c4", (4, 0, 5)),
        ("4.10.0", (4, 10, 0)),
        (None, (0,)),
    ],
)
async def test_the_version_is_what_the_server_says_it_is(
    broker: RabbitMQBroker,
    monkeypatch: pytest.MonkeyPatch,
    told: str | None,
    version: tuple[int, ...],
) -> None:
    properties = {} if told is None else {"version": told}
    connection = SimpleNamespace(server_properties=properties)
    link = broker._consuming

    async def fake() -> Any:
        return SimpleNamespace(transport=SimpleNamespace(connection=connection))

    with monkeypatch.context() as patch:
        patch.setattr(link, "connection", fake)
        assert await link.version() == version


async def test_the_version_is_not_found_out_by_what_is_accepted(
    broker: RabbitMQBroker, outside: AbstractChannel, rabbitmq: RabbitMQ, queue_name: str
) -> None:
    # The trap: an argument that the server does not know is accepted silently.
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delayed-retry-type": "all"}
    if not has_default_limit(rabbitmq):
        await outside.declare_queue(queue_name, durable=True, arguments=arguments)
    major, minor, *_ = (int(part) for part in rabbitmq.version.split(".")[:2])
    assert (await broker._consuming.version())[:2] == (major, minor)


@pytest.mark.parametrize("version", [(3, 10, 8), (3, 13, 7), (4, 0, 5), (4, 3, 0)])
def test_queues_are_made_with_arguments_that_every_version_knows(version: tuple[int, ...]) -> None:
    known = {
        "x-queue-type",
        "x-overflow",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
    }
    for queue, arguments in queue_arguments(Layout(Topology("q", ("payments",))), version).items():
        assert arguments["x-queue-type"] == "quorum"  # classic ones lost no message, but
        # repeated 7,112 of 9,000 when the broker was killed
        unlimited = set() if version < (4, 0) or ".delay." in queue else {"x-delivery-limit"}
        assert set(arguments) - known == unlimited
        encode.field_table(arguments)  # -1 too, which the client of aio-pika 9 could not write


async def test_a_queue_with_one_active_consumer_refuses_a_get_and_is_looked_into_all_the_same(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str
) -> None:
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    queue = await outside.declare_queue(queue_name, durable=True, arguments=arguments)
    await publish_numbered(broker, queue_name, range(2))
    assert await broker.peek(queue_name, limit=5) == [numbered(0), numbered(1)]
    await until_depth(broker, queue_name, 2)
    with pytest.raises(ChannelLockedResource):  # the trap
        await queue.get()


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_consumers_are_counted_and_not_the_messages_that_they_hold(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str, kind: str
) -> None:
    # The trap: before 4.3, previews counted what a quorum queue's consumers had in flight
    # (https://github.com/rabbitmq/rabbitmq-server/pull/16185).
    await outside.declare_queue(queue_name, durable=True, arguments={"x-queue-type": kind})
    for _ in range(3):
        await broker.subscribe(queue_name, prefetch=10)
    await until_receivers(broker, queue_name, 3)  # that have nothing
    await publish_numbered(broker, queue_name, range(30))
    await until_depth(broker, queue_name, 0)
    await until_receivers(broker, queue_name, 3)


@pytest.mark.parametrize(("kind", "counted"), [("classic", 3), ("quorum", 1)])
async def test_of_a_quorum_queue_with_one_active_consumer_only_that_one_is_counted(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str, kind: str, counted: int
) -> None:
    # The trap: a classic queue counts those that wait as well.
    arguments: dict[str, Any] = {"x-queue-type": kind, "x-single-active-consumer": True}
    await outside.declare_queue(queue_name, durable=True, arguments=arguments)
    await publish_numbered(broker, queue_name, range(30))
    for _ in range(3):
        await broker.subscribe(queue_name, prefetch=10)
    await until_depth(broker, queue_name, 20)
    await until_receivers(broker, queue_name, counted)


async def test_closing_the_channel_gives_back_in_order_where_a_nack_would_put_at_the_tail(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    await publish_numbered(broker, queue_name, range(8))
    for prefetch in (1, 4, 8):
        subscription = await broker.subscribe(queue_name, prefetch=prefetch)
        await take(subscription, (prefetch + 1) // 2)
        await until_depth(broker, queue_name, 8 - prefetch)
        await subscription.release()
        await until_depth(broker, queue_name, 8)
    assert await drain(broker, queue_name, 8) == [numbered(number) for number in range(8)]


async def test_what_is_given_back_goes_behind_what_was_given_back_before(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    # The trap: "at the head" is before what was never delivered, so that order is kept only by a
    # single consumer that takes all that it gave back. A look at more than it takes upsets it.
    await broker.create_queue(queue_name)
    await publish_numbered(broker, queue_name, range(8))
    await broker.peek(queue_name, limit=6)
    await until_depth(broker, queue_name, 8)
    subscription = await broker.subscribe(queue_name, prefetch=2)
    await take(subscription, 2)
    await subscription.release()
    await until_depth(broker, queue_name, 8)
    order = [number_of(message) for message in await drain(broker, queue_name, 8)]
    assert order == [2, 3, 4, 5, 0, 1, 6, 7]
