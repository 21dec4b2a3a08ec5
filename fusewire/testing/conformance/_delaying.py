"""A delayed message comes to its source when its time is over, and not before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Message
from fusewire.errors import MoveRefusedError
from fusewire.testing.conformance._messages import (
    FULL,
    drain,
    number_of,
    numbered,
    publish_numbered,
    take,
    until_depth,
)

if TYPE_CHECKING:
    from fusewire.brokers import Broker, Topology


class Delaying:
    """Delays are kept; a broker's capabilities say which."""

    async def test_a_delayed_message_returns_to_its_source_after_its_time(
        self, broker: Broker, topology: Topology
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

    async def test_a_delayed_message_can_be_looked_at_and_does_not_wait_in_the_source(
        self, broker: Broker, topology: Topology
    ) -> None:
        await broker.publish(topology.source, FULL, delay=60.0)

        await until_depth(broker, topology.delayed, 1)
        assert await broker.peek(topology.delayed, limit=5) == [FULL]
        assert await broker.depth(topology.source) == 0
        assert await broker.peek(topology.source, limit=5) == []

    async def test_a_short_delay_does_not_wait_behind_a_long_one(
        self, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(2))
        subscription = await broker.subscribe(topology.source, prefetch=2)
        first, second = await take(subscription, 2)
        await first.move(topology.source, first.message, delay=60.0)
        await second.move(topology.source, second.message, delay=0.2)

        [back] = await take(subscription, 1)

        assert number_of(back.message) == 1

    async def test_a_delayed_message_comes_behind_what_was_published_meanwhile(
        self, broker: Broker, topology: Topology
    ) -> None:
        await broker.publish(topology.source, numbered(1), delay=0.2)
        await broker.publish(topology.source, numbered(2))
        await until_depth(broker, topology.source, 2)

        assert await drain(broker, topology.source, 2) == [numbered(2), numbered(1)]

    async def test_any_delay_is_kept_and_not_only_those_of_the_topology(
        self, broker: Broker, topology: Topology
    ) -> None:
        if not broker.capabilities.any_delay:
            pytest.skip("the broker keeps the delays of the topology only")
        begun = time.monotonic()
        await broker.publish(topology.source, numbered(1), delay=0.5)

        assert await drain(broker, topology.source, 1) == [numbered(1)]

        assert 0.49 < time.monotonic() - begun < 30

    async def test_a_long_delay_is_not_given_back_at_once_whatever_its_length(
        self, broker: Broker, topology: Topology
    ) -> None:
        await broker.publish(topology.source, numbered(1), delay=86_400)

        await until_depth(broker, topology.delayed, 1)
        assert await broker.depth(topology.source) == 0

    async def test_only_a_source_takes_a_delay(self, broker: Broker, topology: Topology) -> None:
        for station in (topology.dead, topology.parked("other")):
            with pytest.raises(ValueError, match="delay"):
                await broker.publish(station, numbered(1), delay=1.0)

        assert await broker.depth(topology.dead) == 0

    async def test_what_is_delayed_takes_no_message(
        self, broker: Broker, topology: Topology
    ) -> None:
        with pytest.raises(MoveRefusedError):
            await broker.publish(topology.delayed, Message(body=b"lost"))

        assert await broker.depth(topology.delayed) == 0
