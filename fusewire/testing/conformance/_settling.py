"""A delivery is settled once: moved, removed, or given back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import pytest

from fusewire.errors import BrokerUnavailableError, DeliveryLostError, MoveRefusedError
from fusewire.testing.conformance._messages import (
    LIMIT,
    drain,
    number_of,
    numbered,
    publish_numbered,
    take,
    until_depth,
)

if TYPE_CHECKING:
    from fusewire.brokers import Broker, Topology
    from fusewire.testing.conformance._place import Place


class Moving:
    """A move stores the message in its new station before it leaves the old one."""

    async def test_a_move_stores_the_new_message_and_takes_the_original_off(
        self, place: Place, broker: Broker, topology: Topology
    ) -> None:
        await broker.publish(topology.source, numbered(1))
        async with place.open() as other:
            [delivery] = await take(await other.subscribe(topology.source, prefetch=1), 1)
            await delivery.move(topology.dead, numbered(2))

        await until_depth(broker, topology.source, 0)
        assert await drain(broker, topology.dead, 1) == [numbered(2)]

    async def test_a_move_to_a_missing_queue_leaves_the_message_in_hand(
        self, broker: Broker, topology: Topology
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

    async def test_a_move_with_a_delay_to_what_is_no_source_leaves_the_message_in_hand(
        self, broker: Broker, topology: Topology
    ) -> None:
        await broker.publish(topology.source, numbered(1))
        subscription = await broker.subscribe(topology.source, prefetch=1)
        [delivery] = await take(subscription, 1)

        with pytest.raises(ValueError, match="delay"):
            await delivery.move(topology.dead, delivery.message, delay=1.0)

        assert not delivery.lost
        await delivery.move(topology.dead, delivery.message)
        assert await drain(broker, topology.dead, 1) == [numbered(1)]

    async def test_concurrent_moves_all_arrive_exactly_once(
        self, broker: Broker, topology: Topology
    ) -> None:
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


class GivingBack:
    """What is not settled comes back, in order."""

    async def test_released_messages_come_back_in_order_before_later_ones(
        self, broker: Broker, topology: Topology
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

    async def test_only_what_is_not_settled_comes_back(
        self, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(4))
        subscription = await broker.subscribe(topology.source, prefetch=4)
        deliveries = await take(subscription, 4)
        await deliveries[0].done()
        await deliveries[2].move(topology.dead, deliveries[2].message)

        await subscription.release()

        assert await drain(broker, topology.source, 2) == [numbered(1), numbered(3)]

    async def test_what_a_closed_broker_had_in_hand_comes_back_as_redelivered(
        self, place: Place, broker: Broker
    ) -> None:
        source = place.queue
        await publish_numbered(broker, source, range(3))
        async with place.open() as other:
            await take(await other.subscribe(source, prefetch=3), 3)

        deliveries = await take(await broker.subscribe(source, prefetch=3), 3)

        assert [number_of(delivery.message) for delivery in deliveries] == [0, 1, 2]
        assert all(delivery.redelivered for delivery in deliveries)

    async def test_a_delivery_says_whether_it_came_back(
        self, broker: Broker, topology: Topology
    ) -> None:
        await broker.publish(topology.source, numbered(1))
        for again in (False, True):
            subscription = await broker.subscribe(topology.source, prefetch=1)
            [delivery] = await take(subscription, 1)
            assert delivery.redelivered is again
            # Nobody died, which is all that some brokers count; others count every return.
            assert delivery.returned in ((0, 1) if again else (0,))
            await subscription.release()

    async def test_a_delivery_is_lost_when_it_was_given_back_and_not_when_it_is_settled(
        self, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(3))
        subscription = await broker.subscribe(topology.source, prefetch=3)
        done, moved, kept = await take(subscription, 3)
        await done.done()
        await moved.move(topology.dead, moved.message)
        assert [done.lost, moved.lost, kept.lost] == [False, False, False]

        await subscription.release()

        assert kept.lost

    async def test_a_released_delivery_cannot_be_settled_any_more(
        self, broker: Broker, topology: Topology
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
        self, broker: Broker, topology: Topology
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

    async def test_leaving_a_broker_ends_those_who_wait_for_its_messages(
        self, place: Place
    ) -> None:
        async with place.open() as broker:
            await broker.create_queue(place.queue)
            subscription = await broker.subscribe(place.queue, prefetch=1)
            waiting = asyncio.create_task(take(subscription, 1))
            await broker.depth(place.queue)  # long enough for the task to wait

        with pytest.raises(BrokerUnavailableError):
            await waiting
        await subscription.release()

    async def test_a_cancelled_release_gives_back_all_the_same(
        self, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(3))
        subscription = await broker.subscribe(topology.source, prefetch=3)
        await take(subscription, 3)

        with anyio.CancelScope() as scope:
            scope.cancel()
            await subscription.release()

        assert len(await drain(broker, topology.source, 3)) == 3

    async def test_what_a_quiet_subscription_has_not_received_comes_to_others_at_once(
        self, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(6))
        former = await broker.subscribe(topology.source, prefetch=5)
        held = await take(former, 2)
        following = await broker.subscribe(topology.source, prefetch=6)

        held += await former.quiesce()
        taken = await take(following, 6 - len(held))
        await publish_numbered(broker, topology.source, range(6, 8))
        for delivery in held:
            assert not delivery.lost
            await delivery.done()
        for delivery in taken:
            await delivery.done()
        taken += await take(following, 2)
        await former.release()
        await following.release()

        received = [number_of(delivery.message) for delivery in held + taken]
        assert sorted(received) == list(range(8))
        last = await drain(broker, topology.source, 2)
        assert sorted(number_of(message) for message in last) == [6, 7]

    async def test_a_subscription_that_is_quiet_takes_nothing_more_and_loses_nothing(
        self, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(3))
        subscription = await broker.subscribe(topology.source, prefetch=10)
        await take(subscription, 1)

        await subscription.quiesce()
        await publish_numbered(broker, topology.source, range(3, 5))
        with anyio.move_on_after(0.2):
            while True:
                delivery = await subscription.receive()
                assert number_of(delivery.message) < 3, "it was published later"
        await subscription.release()

        received = await drain(broker, topology.source, 5)
        assert sorted(number_of(message) for message in received) == list(range(5))
