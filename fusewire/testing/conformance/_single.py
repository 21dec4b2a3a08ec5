"""Lanes with one active receiver at a time, for :attr:`Topology.single`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from fusewire.testing.conformance._messages import (
    number_of,
    numbered,
    publish_numbered,
    take,
    taking,
    until_depth,
    until_receivers,
)

if TYPE_CHECKING:
    from fusewire.brokers import Broker, Topology
    from fusewire.testing.conformance._place import Place


class SingleReceiver:
    """One receives from a lane, and the next takes over all that is left."""

    @pytest.fixture
    async def single(self, place: Place, topology: Topology) -> Topology:
        """The stations of another queue, of which the lanes have one receiver."""
        single = dataclasses.replace(topology, source=f"{topology.source}-single", single=True)
        async with place.open() as opened:
            if not opened.capabilities.single:
                pytest.skip("the broker has no single receivers")
            await opened.create_queue(single.source)
            await opened.prepare(single)
        return single

    async def test_one_receives_and_the_next_takes_over_all_that_is_left_in_order(
        self, place: Place, single: Topology, broker: Broker
    ) -> None:
        lane = single.parked("other")
        await publish_numbered(broker, lane, range(6))
        async with place.open() as first, place.open() as second:
            active = await first.subscribe(lane, prefetch=3)
            held = await take(active, 3)
            async with taking(await second.subscribe(lane, prefetch=10), 5) as got:
                # What the second may have of the lane, it has before what it subscribes to later.
                await broker.publish(single.source, numbered(0))
                await take(await second.subscribe(single.source, prefetch=1), 1)
                assert not got.done()
                await held[0].done()
                # It comes here, and not to the one that waits, which has more room.
                [fourth] = await take(active, 1)
                assert number_of(fourth.message) == 3
                assert not got.done()

                await active.release()

                assert [number_of(delivery.message) for delivery in await got] == [1, 2, 3, 4, 5]

    async def test_a_receiver_that_comes_back_waits_behind_the_one_that_took_over(
        self, place: Place, single: Topology, broker: Broker
    ) -> None:
        lane = single.parked("other")
        async with place.open() as first, place.open() as second:
            one = await first.subscribe(lane, prefetch=1)
            await broker.publish(lane, numbered(0))
            await take(one, 1)
            other = await second.subscribe(lane, prefetch=1)
            async with taking(other, 1) as taken:
                await one.release()
                [delivery] = await taken
            async with taking(await first.subscribe(lane, prefetch=1), 1) as waiting:
                await broker.publish(lane, numbered(1))
                await delivery.done()
                [following] = await take(other, 1)
                assert number_of(following.message) == 1
                assert not waiting.done()

    async def test_the_one_that_receives_counts_and_those_that_wait_may(
        self, place: Place, single: Topology, broker: Broker
    ) -> None:
        lane = single.parked("other")
        await publish_numbered(broker, lane, range(3))
        async with place.open() as first, place.open() as second:
            active = await first.subscribe(lane, prefetch=2)
            await take(active, 2)
            waiting = await second.subscribe(lane, prefetch=2)
            assert await broker.receivers(lane) in {1, 2}
            await active.release()
            await take(waiting, 2)
            await until_receivers(broker, lane, 1)
        await until_receivers(broker, lane, 0)

    async def test_who_is_quiet_finishes_what_it_has_while_the_next_one_receives(
        self, place: Place, single: Topology, broker: Broker
    ) -> None:
        lane = single.parked("other")
        await publish_numbered(broker, lane, range(3))
        async with place.open() as first, place.open() as second:
            former = await first.subscribe(lane, prefetch=1)
            [held] = await take(former, 1)
            async with taking(await second.subscribe(lane, prefetch=10), 2) as got:
                assert not await former.quiesce()

                assert [number_of(delivery.message) for delivery in await got] == [1, 2]
                await held.done()
                await former.release()

    async def test_a_lane_keeps_its_single_receiver_when_it_is_prepared_without(
        self, place: Place, single: Topology, broker: Broker
    ) -> None:
        await broker.prepare(dataclasses.replace(single, single=False))
        lane = single.parked("other")
        await broker.publish(lane, numbered(0))
        async with place.open() as first, place.open() as second:
            active = await first.subscribe(lane, prefetch=1)
            [delivery] = await take(active, 1)
            async with taking(await second.subscribe(lane, prefetch=1), 1) as waiting:
                await broker.publish(lane, numbered(1))
                await delivery.done()
                [following] = await take(active, 1)
                assert number_of(following.message) == 1
                assert not waiting.done()

    async def test_the_source_is_shared_as_before(
        self, place: Place, single: Topology, broker: Broker
    ) -> None:
        await publish_numbered(broker, single.source, range(2))
        async with place.open() as first, place.open() as second:
            await take(await first.subscribe(single.source, prefetch=1), 1)
            await take(await second.subscribe(single.source, prefetch=1), 1)

    async def test_what_waits_can_be_counted_and_seen_while_nobody_receives_it(
        self, single: Topology, broker: Broker
    ) -> None:
        lane = single.parked("other")
        await publish_numbered(broker, lane, range(3))
        assert await broker.peek(lane, limit=2) == [numbered(0), numbered(1)]
        assert [number_of(message) for message in await broker.peek(lane, limit=9)] == [0, 1, 2]
        await until_depth(broker, lane, 3)
        assert await broker.peek(single.dead, limit=9) == []

    async def test_an_empty_lane_has_nothing_to_see(self, single: Topology, broker: Broker) -> None:
        assert await broker.peek(single.parked("other"), limit=5) == []
