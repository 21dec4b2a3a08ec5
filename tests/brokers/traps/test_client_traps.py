"""What AMQP and its Python client do that nobody expects, and what is done about it."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aio_pika
import pytest
from aiormq.abc import ChannelFrame
from pamqp.heartbeat import Heartbeat

from fusewire.brokers import Message, RabbitMQBroker, Topology
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
    MoveRefusedError,
    UnconfirmedError,
)
from tests.support.messages import number_of, numbered, publish_numbered, take, until_depth
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aio_pika.abc import AbstractChannel

    from fusewire.testing.faults import FaultProxy


async def test_an_unroutable_mandatory_publish_is_an_error_not_silence(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str
) -> None:
    # The trap: on a channel as it comes, this returns as if the message were stored.
    await outside.default_exchange.publish(aio_pika.Message(b"a"), queue_name, mandatory=True)

    with pytest.raises(MoveRefusedError, match="no such queue"):
        await broker.publish(queue_name, numbered(1))


async def test_an_unroutable_publish_is_an_error_after_a_reconnect_too(
    far_broker: RabbitMQBroker, proxy: FaultProxy, queue_name: str
) -> None:
    async def is_refused() -> bool:
        try:
            await far_broker.publish(queue_name, numbered(1))
        except MoveRefusedError:
            return True
        except (BrokerUnavailableError, UnconfirmedError):
            return False  # of the connection that was cut
        raise AssertionError("it returned as if the message were stored")

    for _ in range(3):
        await until(is_refused)
        proxy.cut()


async def test_a_returned_message_is_not_taken_for_a_confirmed_one_of_the_same_message_id(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    same = Message(body=b"a", message_id="the same")
    queues = [queue_name, f"{queue_name}-missing"] * 50
    results = await asyncio.gather(
        *(broker.publish(queue, same) for queue in queues), return_exceptions=True
    )
    for queue, result in zip(queues, results, strict=True):
        if queue == queue_name:
            assert result is None
        else:
            assert isinstance(result, MoveRefusedError)
    await until_depth(broker, queue_name, 50)


async def test_acknowledging_on_a_stale_channel_is_reported_and_the_message_comes_again(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    await broker.publish(queue_name, numbered(1))
    [stale] = await take(await broker.subscribe(queue_name, prefetch=1), 1)
    await broker._consuming.close()

    with pytest.raises(DeliveryLostError):
        await stale.done()
    with pytest.raises(DeliveryLostError):
        await stale.move(queue_name, stale.message)

    [again] = await take(await broker.subscribe(queue_name, prefetch=5), 1)
    assert (number_of(again.message), again.redelivered) == (1, True)
    await again.done()
    await until_depth(broker, queue_name, 0)  # the stale one was not moved either


async def test_a_copy_is_persistent_and_does_not_inherit_what_would_make_it_vanish(
    broker: RabbitMQBroker,
    outside: AbstractChannel,
    queue_name: str,
    forget_queue: Callable[[str], None],
) -> None:
    forget_queue(f"{queue_name}.copy")
    await broker.create_queue(queue_name)
    await broker.create_queue(f"{queue_name}.copy")
    original = aio_pika.Message(b"a", expiration=60)
    assert original.delivery_mode == aio_pika.DeliveryMode.NOT_PERSISTENT  # the trap: by default
    await outside.default_exchange.publish(original, queue_name)

    [delivery] = await take(await broker.subscribe(queue_name, prefetch=1), 1)
    await delivery.move(f"{queue_name}.copy", delivery.message)

    copy = await (await outside.get_queue(f"{queue_name}.copy")).get()
    assert copy.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert copy.expiration is None
    await copy.ack()


async def test_a_cancelled_declare_consume_or_qos_takes_no_other_channel_with_it(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    chance = random.Random(1)
    topology = Topology(queue_name)
    await broker.create_queue(queue_name)
    await broker.create_queue(str(topology.dead))
    subscription = await broker.subscribe(queue_name, prefetch=10)
    for number in range(20):
        for work in (
            broker.depth(queue_name),
            broker.receivers(queue_name),
            broker.prepare(topology),
            broker.subscribe(topology.dead, prefetch=1),
            broker.publish(topology.dead, numbered(0)),
        ):
            task = asyncio.ensure_future(work)
            await asyncio.wait([task], timeout=chance.random() / 300)
            task.cancel()
            await asyncio.wait([task])
        await broker.publish(queue_name, numbered(number))
        [delivery] = await take(subscription, 1)
        assert number_of(delivery.message) == number
        await delivery.done()


@asynccontextmanager
async def busy(broker: RabbitMQBroker) -> AsyncIterator[None]:
    """Have the connection for consuming write all the time, so that its queue of frames is full."""
    transport = (await broker._consuming.connection()).transport
    assert transport is not None
    frames = transport.connection.write_queue

    async def write() -> None:
        while True:
            written = asyncio.get_running_loop().create_future()
            await frames.put(ChannelFrame.marshall(0, [Heartbeat()], written))
            await written

    async with asyncio.TaskGroup() as group:
        writing = [group.create_task(write()) for _ in range(30)]
        yield
        for task in writing:
            task.cancel()


async def test_what_was_in_flight_when_a_channel_was_closed_comes_again_however_busy_the_connection(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    # The trap: the answer to the closing is dropped, and RabbitMQ keeps what is unacknowledged.
    await broker.create_queue(queue_name)
    await publish_numbered(broker, queue_name, range(20))
    subscriptions = [await broker.subscribe(queue_name, prefetch=2) for _ in range(10)]
    for subscription in subscriptions:
        await take(subscription, 2)
    async with busy(broker):
        for subscription in subscriptions:
            underlay = await subscription._channel.get_underlay_channel()
            await underlay.basic_ack(999, wait=False)  # RabbitMQ closes the channel for it
            with pytest.raises(BrokerUnavailableError, match="unknown delivery tag"):
                await take(subscription, 1)
    await until_depth(broker, queue_name, 20)


async def test_a_consumer_outlives_garbage_collection(
    broker: RabbitMQBroker, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    subscription = await broker.subscribe(queue_name, prefetch=5)
    for number in range(3):
        gc.collect()
        await broker.publish(queue_name, numbered(number))
        [delivery] = await take(subscription, 1)
        await delivery.done()
    gc.collect()
    await broker._consuming.close()
    with pytest.raises(BrokerUnavailableError):  # told by callbacks, which are alive too
        await take(subscription, 1)


async def test_nothing_waits_forever_while_nothing_answers(
    far_broker: RabbitMQBroker, proxy: FaultProxy, queue_name: str
) -> None:
    await far_broker.create_queue(queue_name)
    await publish_numbered(far_broker, queue_name, range(2))
    subscription = await far_broker.subscribe(queue_name, prefetch=2)
    first, _ = await take(subscription, 2)
    proxy.stall()
    async with asyncio.timeout(60):
        for work in (
            far_broker.publish(queue_name, numbered(2)),
            first.move(queue_name, numbered(3)),
            far_broker.depth(queue_name),
            far_broker.receivers(queue_name),
            far_broker.peek(queue_name, limit=1),
            far_broker.subscribe(queue_name, prefetch=1),
            far_broker.prepare(Topology(queue_name)),
        ):
            with pytest.raises(BrokerError):
                await work
        await subscription.release()


async def test_publishing_goes_on_after_a_time_in_which_nothing_answered(
    far_broker: RabbitMQBroker, proxy: FaultProxy, queue_name: str
) -> None:
    await far_broker.create_queue(queue_name)
    await far_broker.publish(queue_name, numbered(1))
    proxy.stall()
    with pytest.raises(UnconfirmedError):
        await far_broker.publish(queue_name, numbered(2))
    proxy.heal()
    await asyncio.wait_for(far_broker.publish(queue_name, numbered(3)), 10)
    await until_depth(far_broker, queue_name, 3)  # the one in doubt has landed


async def test_a_lost_connection_is_reported_and_the_next_one_is_as_good(
    far_broker: RabbitMQBroker, proxy: FaultProxy, queue_name: str
) -> None:
    await far_broker.create_queue(queue_name)
    await publish_numbered(far_broker, queue_name, range(3))
    for _ in range(3):
        subscription = await far_broker.subscribe(queue_name, prefetch=10)
        assert [number_of(delivery.message) for delivery in await take(subscription, 3)] == [
            0,
            1,
            2,
        ]
        waiting = asyncio.create_task(subscription.receive())
        proxy.cut()
        with pytest.raises(BrokerUnavailableError):
            await asyncio.wait_for(waiting, 10)


async def test_a_waiter_on_a_connection_that_heartbeats_end_sees_its_loss(
    far_url: str, proxy: FaultProxy, queue_name: str
) -> None:
    # aiormq ends them with CancelledError, though nobody has cancelled them.
    async with RabbitMQBroker(f"{far_url}?heartbeat=1", timeout=60) as broker:
        await broker.create_queue(queue_name)
        await publish_numbered(broker, queue_name, range(2))
        subscription = await broker.subscribe(queue_name, prefetch=2)
        first, _ = await take(subscription, 2)
        proxy.strand()
        async with asyncio.timeout(40):
            ended = await asyncio.gather(
                broker.publish(queue_name, numbered(2)),
                first.move(queue_name, numbered(3)),
                broker.peek(queue_name, limit=1),
                subscription.receive(),
                # What may be done twice is, over the next connection.
                broker.depth(queue_name),
                broker.receivers(queue_name),
                broker.subscribe(queue_name, prefetch=1),
                broker.prepare(Topology(queue_name)),
                return_exceptions=True,
            )
        assert [error for error in ended[:4] if not isinstance(error, BrokerError)] == []
        assert [error for error in ended[4:] if isinstance(error, BaseException)] == []
        await subscription.release()
        await broker.publish(queue_name, numbered(4))
