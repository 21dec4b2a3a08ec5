"""Several receivers of one station, and all of it together."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest

from fusewire.brokers import Station
from fusewire.testing.conformance._messages import (
    LIMIT,
    number_of,
    publish_numbered,
    take,
    taking,
    until_depth,
)

if TYPE_CHECKING:
    from fusewire.brokers import Broker, Delivery, Subscription, Topology
    from fusewire.testing.conformance._place import Place


class Sharing:
    """Receivers share a station without overlap, each within its prefetch."""

    async def test_two_subscriptions_share_a_queue_without_overlap(
        self, place: Place, broker: Broker
    ) -> None:
        source = place.queue
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

    async def test_no_more_than_the_prefetch_is_in_hand(
        self, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(5))
        subscription = await broker.subscribe(topology.source, prefetch=2)
        first, _ = await take(subscription, 2)
        async with taking(subscription, 1) as third:
            await until_depth(broker, topology.source, 3)
            await asyncio.wait([third], timeout=0.1)
            assert not third.done()

            await first.done()
            [delivery] = await third
        assert number_of(delivery.message) == 2
        await until_depth(broker, topology.source, 2)

    async def test_a_cancelled_wait_loses_nothing(self, broker: Broker, topology: Topology) -> None:
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
                    for _ in range(chance.randrange(8)):  # at every await, sooner or later
                        await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
        await publishing

        assert sorted(received) == list(range(60))
        await until_depth(broker, topology.source, 0)


class Workload:
    """After everything together, every message is somewhere exactly once."""

    @pytest.mark.parametrize("seed", [1, 2, 3])
    async def test_after_a_random_workload_every_message_is_somewhere_exactly_once(
        self, place: Place, broker: Broker, topology: Topology, seed: int
    ) -> None:
        chance = random.Random(seed)
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
