"""A message is what it was, whatever queues it went through: asserted of every broker."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Message, Station
from tests.support.messages import FULL, drain, take

if TYPE_CHECKING:
    from fusewire.brokers import Broker, Topology

MESSAGES = {
    "full": FULL,
    "empty": Message(body=b""),
    "empty strings": Message(body=b"", message_id="", correlation_id="", type="", app_id=""),
    "non-ASCII": Message(body="å".encode(), message_id="№ 1", type="тип", routing_key="ü.*"),
    "zeros": Message(body=b"0", priority=0, timestamp=datetime(1970, 1, 1, tzinfo=UTC)),
    "1 MiB": Message(body=random.Random(1).randbytes(2**20)),
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
async def test_a_published_message_is_received_as_it_was(
    broker: Broker, topology: Topology, message: Message
) -> None:
    await broker.publish(topology.source, message)

    assert await broker.peek(topology.source, limit=1) == [message]
    [received] = await drain(broker, topology.source, 1)
    assert received == message
    assert kinds(received.headers) == kinds(message.headers)


async def test_a_message_keeps_its_identity_through_moves_and_a_delay(
    broker: Broker, topology: Topology
) -> None:
    way = [(topology.parked("other"), 0.0), (Station(topology.source), 0.2), (topology.dead, 0.0)]
    await broker.publish(topology.source, FULL)
    station = Station(topology.source)
    for target, delay in way:
        subscription = await broker.subscribe(station, prefetch=1)
        [delivery] = await take(subscription, 1)
        station = target
        await delivery.move(station, delivery.message, delay=delay)
        await subscription.release()

    assert await drain(broker, topology.dead, 1) == [FULL]


def kinds(value: object) -> object:
    """Return the types in a header: equal values may differ in them (True == 1 == 1.0)."""
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [kinds(item) for item in value]
    return type(value)
