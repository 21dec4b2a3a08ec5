"""What parking relies on, asserted of every broker."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest

from fusewire.brokers import Station
from fusewire.errors import (
    BrokerUnavailableError,
    DeliveryLostError,
    MoveRefusedError,
    QueueNotFoundError,
)
from tests.support.messages import (
    FULL,
    LIMIT,
    drain,
    number_of,
    numbered,
    publish_numbered,
    take,
    until_depth,
)

if TYPE_CHECKING:
    from fusewire.brokers import Broker, Delivery, Subscription, Topology
    from tests.brokers.conftest import Place

# -- publishing and receiving ----------------------------------------------------------------------


async def test_messages_are_received_in_the_order_of_publishing(
    broker: Broker, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(5))

    received = await drain(broker, topology.source, 5)

    assert [number_of(message) for message in received] == list(range(5))


async def test_a_waiting_receiver_gets_a_message_published_later(
    broker: Broker, topology: Topology
) -> None:
    subscription = await broker.subscribe(topology.source, prefetch=1)
    waiting = asyncio.create_task(take(subscription, 1))
    await broker.depth(topology.source)  # long enough for the task to wait
    await broker.publish(topology.source, numbered(1))

    [delivery] = await waiting

    assert number_of(delivery.message) == 1
    assert not delivery.redelivered


async def test_a_published_message_outlives_the_broker_object(place: Place) -> None:
    source = place.topology.source
    async with place.open() as first:
        await first.create_queue(source)
        await first.publish(source, FULL)

    async with place.open() as second:
        assert await drain(second, source, 1) == [FULL]


async def test_a_message_that_is_done_does_not_come_again(place: Place, broker: Broker) -> None:
    source = place.topology.source
    await broker.publish(source, numbered(1))
    async with place.open() as other:
        [delivery] = await take(await other.subscribe(source, prefetch=1), 1)
        await delivery.done()

    await until_depth(broker, source, 0)
    await broker.publish(source, numbered(2))
    assert [number_of(message) for message in await drain(broker, source, 1)] == [2]


async def test_queues_are_made_once_and_making_them_again_changes_nothing(
    broker: Broker, topology: Topology
) -> None:
    await broker.publish(topology.source, numbered(1))
    await broker.publish(topology.dead, numbered(2))

    await broker.create_queue(topology.source)
    await broker.prepare(topology)

    await until_depth(broker, topology.source, 1)
    await until_depth(broker, topology.dead, 1)


async def test_a_mark_is_seen_by_others_until_it_is_taken_away(
    place: Place, broker: Broker, topology: Topology
) -> None:
    queue = topology.source
    assert not await broker.is_marked(queue, "0123456789abcdef.1")

    async with place.open() as other:
        await other.mark(queue, "0123456789abcdef.1")
        await other.mark(queue, "0123456789abcdef.1")

    assert await broker.is_marked(queue, "0123456789abcdef.1")
    assert not await broker.is_marked(queue, "0123456789abcdef.2")
    assert not await broker.is_marked(f"{queue}-2", "0123456789abcdef.1")
    await broker.unmark(queue, "0123456789abcdef.1")
    await broker.unmark(queue, "0123456789abcdef.1")
    assert not await broker.is_marked(queue, "0123456789abcdef.1")


# -- moving ----------------------------------------------------------------------------------------


async def test_a_move_stores_the_new_message_and_takes_the_original_off(
    place: Place, broker: Broker
) -> None:
    topology = place.topology
    await broker.publish(topology.source, numbered(1))
    async with place.open() as other:
        [delivery] = await take(await other.subscribe(topology.source, prefetch=1), 1)
        await delivery.move(topology.dead, numbered(2))

    await until_depth(broker, topology.source, 0)
    assert await drain(broker, topology.dead, 1) == [numbered(2)]


async def test_a_move_to_a_missing_queue_leaves_the_message_in_hand(
    broker: Broker, topology: Topology
) -> None:
    await broker.publish(topology.source, numbered(1))
    subscription = await broker.subscribe(topology.source, prefetch=1)
    [delivery] = await take(subscription, 1)

    for _ in range(2):
        with pytest.raises(MoveRefusedError, match=r"missing-queue"):
            await delivery.move("missing-queue", delivery.message)

    await until_depth(broker, topology.source, 0)  # in flight, so it does not wait
    await delivery.move(topology.dead, delivery.message)
    assert await drain(broker, topology.dead, 1) == [numbered(1)]


async def test_concurrent_moves_all_arrive_exactly_once(broker: Broker, topology: Topology) -> None:
    await publish_numbered(broker, topology.source, range(200))
    subscription = await broker.subscribe(topology.source, prefetch=25)

    async def move_eight() -> None:
        for _ in range(8):
            delivery = await subscription.receive()
            await delivery.move(topology.dead, delivery.message)

    with anyio.fail_after(LIMIT):
        await asyncio.gather(*(move_eight() for _ in range(25)))

    arrived = await drain(broker, topology.dead, 200)
    assert sorted(number_of(message) for message in arrived) == list(range(200))
    await until_depth(broker, topology.source, 0)


async def test_a_delayed_message_returns_to_its_source_after_its_time(
    broker: Broker, topology: Topology
) -> None:
    await broker.publish(topology.source, FULL)
    subscription = await broker.subscribe(topology.source, prefetch=1)
    [delivery] = await take(subscription, 1)
    begun = time.monotonic()
    await delivery.move(topology.source, delivery.message, delay=0.2)

    [returned] = await take(subscription, 1)

    # Brokers count whole milliseconds of a clock that may be another than ours.
    assert time.monotonic() - begun > 0.19
    assert returned.message == FULL
    await returned.done()
    await until_depth(broker, topology.delayed, 0)


async def test_a_delayed_message_waits_in_the_delay_queue(
    broker: Broker, topology: Topology
) -> None:
    await broker.publish(topology.source, FULL, delay=60.0)

    await until_depth(broker, topology.delayed, 1)
    assert await broker.peek(topology.delayed, limit=5) == [FULL]
    assert await broker.depth(topology.source) == 0


# -- giving back -----------------------------------------------------------------------------------


async def test_released_messages_come_back_in_order_before_later_ones(
    broker: Broker, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(5))
    first = await broker.subscribe(topology.source, prefetch=4)
    await take(first, 3)
    await publish_numbered(broker, topology.source, range(5, 7))

    await first.release()

    second = await broker.subscribe(topology.source, prefetch=10)
    deliveries = await take(second, 7)
    assert [number_of(delivery.message) for delivery in deliveries] == list(range(7))
    assert [delivery.redelivered for delivery in deliveries[:3]] == [True] * 3
    assert [delivery.redelivered for delivery in deliveries[5:]] == [False] * 2


async def test_only_what_is_not_settled_comes_back(broker: Broker, topology: Topology) -> None:
    await publish_numbered(broker, topology.source, range(4))
    subscription = await broker.subscribe(topology.source, prefetch=4)
    deliveries = await take(subscription, 4)
    await deliveries[0].done()
    await deliveries[2].move(topology.dead, deliveries[2].message)

    await subscription.release()

    assert await drain(broker, topology.source, 2) == [numbered(1), numbered(3)]


async def test_what_a_closed_broker_had_in_hand_comes_back_as_redelivered(
    place: Place, broker: Broker
) -> None:
    source = place.topology.source
    await publish_numbered(broker, source, range(3))
    async with place.open() as other:
        await take(await other.subscribe(source, prefetch=3), 3)

    deliveries = await take(await broker.subscribe(source, prefetch=3), 3)

    assert [number_of(delivery.message) for delivery in deliveries] == [0, 1, 2]
    assert all(delivery.redelivered for delivery in deliveries)


async def test_a_released_delivery_cannot_be_settled_any_more(
    broker: Broker, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(2))
    subscription = await broker.subscribe(topology.source, prefetch=2)
    first, second = await take(subscription, 2)
    await subscription.release()

    with pytest.raises(DeliveryLostError):
        await first.done()
    with pytest.raises(DeliveryLostError):
        await second.move(topology.dead, second.message)

    assert await drain(broker, topology.source, 2) == [numbered(0), numbered(1)]


async def test_a_released_subscription_ends_those_who_wait_for_it(
    broker: Broker, topology: Topology
) -> None:
    subscription = await broker.subscribe(topology.source, prefetch=1)
    waiting = [asyncio.create_task(take(subscription, 1)) for _ in range(3)]
    await broker.depth(topology.source)  # long enough for the tasks to wait

    await subscription.release()
    await subscription.release()

    for task in waiting:
        with pytest.raises(BrokerUnavailableError):
            await task
    with pytest.raises(BrokerUnavailableError):
        await take(subscription, 1)


async def test_a_cancelled_release_gives_back_all_the_same(
    broker: Broker, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(3))
    subscription = await broker.subscribe(topology.source, prefetch=3)
    await take(subscription, 3)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await subscription.release()

    assert len(await drain(broker, topology.source, 3)) == 3


# -- sharing ---------------------------------------------------------------------------------------


async def test_two_subscriptions_share_a_queue_without_overlap(
    place: Place, broker: Broker
) -> None:
    source = place.topology.source
    await publish_numbered(broker, source, range(40))
    seen: list[int] = []
    async with place.open() as other:
        subscriptions = [
            await broker.subscribe(source, prefetch=5),
            await other.subscribe(source, prefetch=5),
        ]
        # Both have something in flight before either goes on.
        for subscription in subscriptions:
            [delivery] = await take(subscription, 1)
            seen.append(number_of(delivery.message))
            await delivery.done()

        async def handle(subscription: Subscription) -> None:
            while len(seen) < 40:
                delivery = await subscription.receive()
                seen.append(number_of(delivery.message))
                await delivery.done()
            group.cancel_scope.cancel()

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                for subscription in subscriptions:
                    group.start_soon(handle, subscription)

    assert sorted(seen) == list(range(40))


async def test_no_more_than_the_prefetch_is_in_hand(broker: Broker, topology: Topology) -> None:
    await publish_numbered(broker, topology.source, range(5))
    subscription = await broker.subscribe(topology.source, prefetch=2)
    first, _ = await take(subscription, 2)
    third = asyncio.create_task(take(subscription, 1))

    await until_depth(broker, topology.source, 3)
    assert not third.done()

    await first.done()
    [delivery] = await third
    assert number_of(delivery.message) == 2
    await until_depth(broker, topology.source, 2)


async def test_a_cancelled_wait_loses_nothing(broker: Broker, topology: Topology) -> None:
    chance = random.Random(2)
    subscription = await broker.subscribe(topology.source, prefetch=3)
    received: list[int] = []

    async def handle() -> None:
        delivery = await subscription.receive()
        # No point to be cancelled at between receiving and noting.
        received.append(number_of(delivery.message))
        await asyncio.shield(asyncio.ensure_future(delivery.done()))

    publishing = asyncio.create_task(publish_numbered(broker, topology.source, range(60)))
    with anyio.fail_after(LIMIT):
        while len(received) < 60:
            task = asyncio.create_task(handle())
            if chance.random() < 0.5:
                await asyncio.wait([task], timeout=chance.random() / 500)
            else:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
    await publishing

    assert sorted(received) == list(range(60))
    await until_depth(broker, topology.source, 0)


# -- looking ---------------------------------------------------------------------------------------


async def test_depth_counts_what_waits_and_not_what_is_in_hand(
    broker: Broker, topology: Topology
) -> None:
    assert await broker.depth(topology.source) == 0
    await publish_numbered(broker, topology.source, range(4))
    await until_depth(broker, topology.source, 4)

    subscription = await broker.subscribe(topology.source, prefetch=1)
    [delivery] = await take(subscription, 1)
    await until_depth(broker, topology.source, 3)

    await subscription.release()
    await until_depth(broker, topology.source, 4)
    assert delivery.message == numbered(0)


async def test_peek_shows_the_oldest_first_and_leaves_them(
    broker: Broker, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(5))

    for _ in range(2):
        assert await broker.peek(topology.source, limit=3) == [numbered(n) for n in range(3)]
    assert len(await broker.peek(topology.source, limit=100)) == 5
    assert await broker.peek(topology.source, limit=0) == []

    await until_depth(broker, topology.source, 5)
    assert await drain(broker, topology.source, 5) == [numbered(n) for n in range(5)]


# -- what is missing -------------------------------------------------------------------------------


async def test_a_missing_queue_is_named(place: Place) -> None:
    missing = f"{place.topology.source}-not-there"
    async with place.open() as broker:
        with pytest.raises(QueueNotFoundError, match=missing):
            await broker.subscribe(missing, prefetch=1)
        with pytest.raises(QueueNotFoundError, match=missing):
            await broker.depth(missing)
        with pytest.raises(QueueNotFoundError, match=missing):
            await broker.peek(missing, limit=1)
        with pytest.raises(MoveRefusedError, match=missing):
            await broker.publish(missing, FULL)


async def test_a_source_queue_is_never_made_by_preparing(place: Place) -> None:
    async with place.open() as broker:
        with pytest.raises(QueueNotFoundError, match=place.topology.source):
            await broker.prepare(place.topology)
        with pytest.raises(QueueNotFoundError):
            await broker.depth(place.topology.source)
        with pytest.raises(QueueNotFoundError):
            await broker.depth(place.topology.dead)


# -- everything together ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_a_random_workload_every_message_is_somewhere_exactly_once(
    place: Place, broker: Broker, seed: int
) -> None:
    topology, chance = place.topology, random.Random(seed)
    finished: list[int] = []
    delays: list[float] = []
    targets = [
        (topology.parked("other"), 0.0),
        (Station(topology.source), 0.2),
        (Station(topology.source), 60.0),
        (topology.dead, 0.0),
    ]

    async def settle(delivery: Delivery) -> None:
        match chance.randrange(4):
            case 0 | 1:
                target, delay = chance.choice(targets)
                await delivery.move(target, delivery.message, delay=delay)
                delays.append(delay)
            case 2:
                await delivery.done()
                finished.append(number_of(delivery.message))
            case _:
                return  # left in flight until it is given back

    async def work() -> None:
        async with place.open() as own:
            await own.prepare(topology)
            for _ in range(4):
                prefetch = chance.randint(1, 8)
                subscription = await own.subscribe(topology.source, prefetch=prefetch)
                with anyio.move_on_after(0.1):
                    while True:
                        delivery = await subscription.receive()
                        with anyio.CancelScope(shield=True):
                            await settle(delivery)
                if chance.random() < 0.5:
                    await subscription.release()

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            group.start_soon(publish_numbered, broker, topology.source, range(150))
            for _ in range(3):
                group.start_soon(work)
        await until_depth(broker, topology.delayed, delays.count(60.0))

    found = Counter(finished)
    for station in (*topology.stations, topology.delayed):
        found.update(number_of(message) for message in await broker.peek(station, limit=1000))
    assert found == Counter(range(150))
