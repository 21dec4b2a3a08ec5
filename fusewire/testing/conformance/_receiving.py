"""Who receives from a station, counted over all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Station
from fusewire.errors import QueueNotFoundError
from fusewire.testing.conformance._messages import publish_numbered, take, until_receivers

if TYPE_CHECKING:
    from fusewire.brokers import Broker, Topology
    from fusewire.testing.conformance._place import Place


class Receiving:
    """Subscriptions are counted by station: replays follow the number of replicas."""

    async def test_receivers_of_all_processes_are_counted_and_not_what_they_have_in_flight(
        self, place: Place, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(25))
        async with place.open() as second, place.open() as third:
            for each in (broker, second, third):
                await take(await each.subscribe(topology.source, prefetch=5), 5)
            for each in (broker, second, third):
                await until_receivers(each, topology.source, 3)

    async def test_receivers_that_have_nothing_are_counted(
        self, place: Place, broker: Broker, topology: Topology
    ) -> None:
        async with place.open() as other:
            assert await broker.receivers(topology.source) == 0
            for number, each in enumerate((broker, other, other), 1):
                await each.subscribe(topology.source, prefetch=10)
                await until_receivers(broker, topology.source, number)

    async def test_each_station_has_receivers_of_its_own(
        self, broker: Broker, topology: Topology
    ) -> None:
        lane = topology.parked("other")
        await broker.subscribe(lane, prefetch=1)
        await until_receivers(broker, lane, 1)
        assert await broker.receivers(topology.source) == 0
        assert await broker.receivers(Station(topology.source)) == 0
        assert await broker.receivers(topology.dead) == 0

    async def test_a_receiver_that_was_released_or_left_does_not_count(
        self, place: Place, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(4))
        async with place.open() as other:
            released = await broker.subscribe(topology.source, prefetch=2)
            await take(released, 2)
            await other.subscribe(topology.source, prefetch=2)
            await until_receivers(broker, topology.source, 2)
            await released.release()
            await until_receivers(broker, topology.source, 1)
        await until_receivers(broker, topology.source, 0)

    async def test_what_a_receiver_settles_does_not_change_the_count(
        self, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(3))
        subscription = await broker.subscribe(topology.source, prefetch=3)
        for delivery in await take(subscription, 3):
            await delivery.done()
        await until_receivers(broker, topology.source, 1)

    async def test_receivers_of_a_station_that_does_not_exist_cannot_be_counted(
        self, broker: Broker, topology: Topology
    ) -> None:
        for missing in (topology.parked("missing"), f"{topology.source}-missing"):
            with pytest.raises(QueueNotFoundError):
                await broker.receivers(missing)
