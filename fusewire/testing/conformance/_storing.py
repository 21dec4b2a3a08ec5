"""A message that is stored is received, once, as it was."""

from __future__ import annotations

import dataclasses
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pytest

from fusewire.brokers import Message, Station
from fusewire.errors import MoveRefusedError, QueueNotFoundError
from fusewire.testing.conformance._messages import (
    FULL,
    drain,
    number_of,
    numbered,
    publish_numbered,
    take,
    taking,
    until_depth,
)

if TYPE_CHECKING:
    from fusewire.brokers import Broker, HeaderValue, Topology
    from fusewire.testing.conformance._place import Place

MESSAGES = {
    "full": FULL,
    "empty": Message(body=b""),
    "empty strings": Message(body=b"", message_id="", correlation_id="", type="", app_id=""),
    "non-ASCII": Message(body="å".encode(), message_id="№ 1", type="тип", routing_key="ü.*"),
    "zeros": Message(body=b"0", priority=0, timestamp=datetime(1970, 1, 1, tzinfo=UTC)),
    "1 MiB": Message(body=random.Random(1).randbytes(2**20)),
}


class Storing:
    """What is published is received; what waits can be looked at."""

    async def test_messages_are_received_in_the_order_of_publishing(
        self, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(5))

        received = await drain(broker, topology.source, 5)

        assert [number_of(message) for message in received] == list(range(5))

    async def test_a_waiting_receiver_gets_a_message_published_later(
        self, broker: Broker, topology: Topology
    ) -> None:
        subscription = await broker.subscribe(topology.source, prefetch=1)
        async with taking(subscription, 1) as waiting:
            await broker.depth(topology.source)  # long enough for the task to wait
            await broker.publish(topology.source, numbered(1))

            [delivery] = await waiting

        assert number_of(delivery.message) == 1
        assert not delivery.redelivered

    async def test_a_name_means_the_source_queue_of_that_name(
        self, broker: Broker, topology: Topology
    ) -> None:
        await broker.publish(Station(topology.source), numbered(1))

        await until_depth(broker, topology.source, 1)
        assert await drain(broker, topology.source, 1) == [numbered(1)]

    async def test_a_published_message_outlives_the_broker_object(self, place: Place) -> None:
        source = place.queue
        async with place.open() as first:
            await first.create_queue(source)
            await first.publish(source, FULL)

        async with place.open() as second:
            assert await drain(second, source, 1) == [FULL]

    async def test_a_message_that_is_done_does_not_come_again(
        self, place: Place, broker: Broker
    ) -> None:
        source = place.queue
        await broker.publish(source, numbered(1))
        async with place.open() as other:
            [delivery] = await take(await other.subscribe(source, prefetch=1), 1)
            await delivery.done()

        await until_depth(broker, source, 0)
        await broker.publish(source, numbered(2))
        assert [number_of(message) for message in await drain(broker, source, 1)] == [2]

    async def test_queues_are_made_once_and_making_them_again_changes_nothing(
        self, broker: Broker, topology: Topology
    ) -> None:
        await broker.publish(topology.source, numbered(1))
        await broker.publish(topology.dead, numbered(2))

        await broker.create_queue(topology.source)
        await broker.prepare(topology)

        await until_depth(broker, topology.source, 1)
        await until_depth(broker, topology.dead, 1)

    async def test_depth_counts_what_waits_and_not_what_is_in_flight(
        self, broker: Broker, topology: Topology
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
        self, broker: Broker, topology: Topology
    ) -> None:
        await publish_numbered(broker, topology.source, range(5))

        for _ in range(2):
            assert await broker.peek(topology.source, limit=3) == [numbered(n) for n in range(3)]
        assert len(await broker.peek(topology.source, limit=100)) == 5
        assert await broker.peek(topology.source, limit=0) == []

        await until_depth(broker, topology.source, 5)
        assert await drain(broker, topology.source, 5) == [numbered(n) for n in range(5)]

    async def test_a_missing_queue_is_named(self, place: Place) -> None:
        missing = f"{place.queue}-not-there"
        async with place.open() as broker:
            with pytest.raises(QueueNotFoundError, match=missing):
                await broker.subscribe(missing, prefetch=1)
            with pytest.raises(QueueNotFoundError, match=missing):
                await broker.depth(missing)
            with pytest.raises(QueueNotFoundError, match=missing):
                await broker.peek(missing, limit=1)
            with pytest.raises(MoveRefusedError, match=missing):
                await broker.publish(missing, FULL)

    async def test_a_source_queue_is_never_made_by_preparing(
        self, place: Place, topology: Topology
    ) -> None:
        async with place.open() as broker:
            with pytest.raises(QueueNotFoundError, match=place.queue):
                await broker.prepare(topology)
            with pytest.raises(QueueNotFoundError):
                await broker.depth(place.queue)
            with pytest.raises(QueueNotFoundError):
                await broker.depth(topology.dead)

    async def test_a_lane_that_is_added_is_made_and_the_others_keep_what_they_have(
        self, place: Place, broker: Broker, topology: Topology
    ) -> None:
        await broker.publish(topology.parked("other"), numbered(1))
        wider = dataclasses.replace(topology, lanes=("added", *topology.lanes))
        async with place.open() as other:
            await other.prepare(wider)
        await broker.publish(wider.parked("added"), numbered(2))

        await broker.prepare(topology)

        assert await broker.peek(topology.parked("other"), limit=5) == [numbered(1)]
        assert await broker.peek(wider.parked("added"), limit=5) == [numbered(2)]


class Marks:
    """Marks outlive the process that made them."""

    async def test_a_mark_is_seen_by_others_until_it_is_taken_away(
        self, place: Place, broker: Broker, topology: Topology
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


class Identity:
    """A message is what it was, whatever stations it went through."""

    @pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
    async def test_a_published_message_is_received_as_it_was(
        self, broker: Broker, topology: Topology, message: Message
    ) -> None:
        await broker.publish(topology.source, message)

        assert await broker.peek(topology.source, limit=1) == [message]
        [received] = await drain(broker, topology.source, 1)
        assert received == message
        assert kinds(received.headers) == kinds(message.headers)

    async def test_a_message_keeps_its_identity_through_moves_and_a_delay(
        self, broker: Broker, topology: Topology
    ) -> None:
        way = [
            (topology.parked("other"), 0.0),
            (Station(topology.source), 0.2),
            (topology.dead, 0.0),
        ]
        await broker.publish(topology.source, FULL)
        station = Station(topology.source)
        for target, delay in way:
            subscription = await broker.subscribe(station, prefetch=1)
            [delivery] = await take(subscription, 1)
            station = target
            await delivery.move(station, delivery.message, delay=delay)
            await subscription.release()

        assert await drain(broker, topology.dead, 1) == [FULL]

    async def test_what_is_stored_does_not_change_with_what_was_given(
        self, broker: Broker, topology: Topology
    ) -> None:
        items: list[HeaderValue] = [1]
        await broker.publish(topology.source, Message(body=b"", headers={"items": items}))
        items.append(2)

        for _ in range(2):
            [seen] = await broker.peek(topology.source, limit=1)
            assert seen.headers == {"items": [1]}
            assert isinstance(seen.headers["items"], list)
            seen.headers["items"].append(3)

    async def test_why_a_message_could_not_be_read_is_not_stored_with_it(
        self, broker: Broker, topology: Topology
    ) -> None:
        await broker.publish(topology.source, Message(body=b"", unreadable="it was damaged"))

        assert await drain(broker, topology.source, 1) == [Message(body=b"")]

    async def test_a_header_that_cannot_be_stored_is_named_and_nothing_is_stored(
        self, broker: Broker, topology: Topology
    ) -> None:
        odd = Message(body=b"", headers={"fine": 1, "odd one": cast("str", object())})
        await broker.publish(topology.source, numbered(1))
        subscription = await broker.subscribe(topology.source, prefetch=1)
        [delivery] = await take(subscription, 1)

        with pytest.raises((MoveRefusedError, TypeError), match="odd one"):
            await broker.publish(topology.dead, odd)
        with pytest.raises((MoveRefusedError, TypeError), match="odd one"):
            await delivery.move(topology.dead, odd)

        assert not delivery.lost
        await delivery.move(topology.dead, delivery.message)
        assert await drain(broker, topology.dead, 1) == [numbered(1)]


def kinds(value: object) -> object:
    """Return the types in a header: equal values may differ in them (True == 1 == 1.0)."""
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [kinds(item) for item in value]
    return type(value)
