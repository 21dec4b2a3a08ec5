"""Messages that are found by their ids, for :attr:`Capabilities.searchable`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

import pytest

from fusewire.brokers import Message, Station
from fusewire.errors import MoveRefusedError
from fusewire.testing.conformance._messages import drain, numbered, take, until_depth

if TYPE_CHECKING:
    from fusewire.brokers import Broker, SearchableBroker, Topology


class Searching:
    """What waits is found wherever it is, and removed only while nobody has it."""

    async def test_a_message_is_found_by_its_id_in_every_station(
        self, broker: Broker, topology: Topology
    ) -> None:
        searched = searchable(broker)
        source, lane = Station(topology.source), topology.parked("other")
        await broker.publish(source, numbered(1))
        await broker.publish(lane, numbered(2))
        await broker.publish(topology.dead, numbered(3))
        await broker.publish(source, numbered(4), delay=60.0)

        expected = {1: source, 2: lane, 3: topology.dead, 4: topology.delayed}
        for number, station in expected.items():
            [found] = await searched.find(topology, f"m-{number}")
            assert (found.station, found.message) == (station, numbered(number))
            assert (found.in_flight, found.redelivered) == (False, False)

    async def test_only_the_id_itself_is_found(self, broker: Broker, topology: Topology) -> None:
        searched = searchable(broker)
        alike = Message(body=b"", message_id="m-11", headers={"message_id": "m-1"})
        await broker.publish(topology.source, alike)
        await broker.publish(topology.source, Message(body=b"", correlation_id="m-1"))

        assert await searched.find(topology, "m-1") == []

    async def test_what_is_in_flight_is_found_and_not_withdrawn(
        self, broker: Broker, topology: Topology
    ) -> None:
        searched = searchable(broker)
        await broker.publish(topology.source, numbered(1))
        subscription = await broker.subscribe(topology.source, prefetch=1)
        [delivery] = await take(subscription, 1)

        found = await searched.find(topology, "m-1")

        assert [(each.in_flight, each.message) for each in found] == [(True, numbered(1))]
        assert not await searched.withdraw(found)
        await delivery.done()
        assert await searched.find(topology, "m-1") == []

    async def test_what_is_withdrawn_is_gone_and_another_is_in_its_place(
        self, broker: Broker, topology: Topology
    ) -> None:
        searched = searchable(broker)
        lane = topology.parked("other")
        await broker.publish(lane, numbered(1))
        await broker.publish(lane, numbered(2))
        found = await searched.find(topology, "m-1")

        assert await searched.withdraw(found, (topology.dead, numbered(3)))

        assert await searched.find(topology, "m-1") == []
        assert not await searched.withdraw(found)
        assert await drain(broker, lane, 1) == [numbered(2)]
        assert await drain(broker, topology.dead, 1) == [numbered(3)]

    async def test_what_is_delayed_can_be_withdrawn(
        self, broker: Broker, topology: Topology
    ) -> None:
        searched = searchable(broker)
        await broker.publish(topology.source, numbered(1), delay=60.0)

        assert await searched.withdraw(await searched.find(topology, "m-1"))

        assert await broker.peek(topology.delayed, limit=5) == []

    async def test_what_was_received_since_it_was_found_is_not_withdrawn(
        self, broker: Broker, topology: Topology
    ) -> None:
        searched = searchable(broker)
        await broker.publish(topology.source, numbered(1))
        found = await searched.find(topology, "m-1")
        subscription = await broker.subscribe(topology.source, prefetch=1)
        await take(subscription, 1)

        assert not await searched.withdraw(found, (topology.dead, numbered(2)))
        await subscription.release()
        assert not await searched.withdraw(found, (topology.dead, numbered(2)))

        await until_depth(broker, topology.source, 1)
        assert await broker.depth(topology.dead) == 0
        [again] = await searched.find(topology, "m-1")
        assert again.redelivered
        assert await searched.withdraw([again])

    async def test_all_that_was_found_is_withdrawn_or_nothing(
        self, broker: Broker, topology: Topology
    ) -> None:
        searched = searchable(broker)
        lane = topology.parked("other")
        await broker.publish(lane, numbered(1))
        await broker.publish(topology.source, dataclasses.replace(numbered(1), body=b"copy"))
        found = await searched.find(topology, "m-1")
        assert [each.message.body for each in found] == [b"1", b"copy"]
        subscription = await broker.subscribe(topology.source, prefetch=1)
        [copy] = await take(subscription, 1)

        assert not await searched.withdraw(found)

        assert await broker.depth(lane) == 1
        await copy.done()

    async def test_nothing_is_withdrawn_if_the_other_cannot_be_stored(
        self, broker: Broker, topology: Topology
    ) -> None:
        searched = searchable(broker)
        await broker.publish(topology.source, numbered(1))
        found = await searched.find(topology, "m-1")

        with pytest.raises(MoveRefusedError, match="not-there"):
            await searched.withdraw(found, (f"{topology.source}-not-there", numbered(2)))

        assert await drain(broker, topology.source, 1) == [numbered(1)]


def searchable(broker: Broker) -> SearchableBroker:
    """Return a broker that says that it can be searched; skip the test of any other."""
    if not broker.capabilities.searchable:
        pytest.skip("the broker cannot look up a message")
    return cast("SearchableBroker", broker)
