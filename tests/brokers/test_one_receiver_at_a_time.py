"""Lanes with one active receiver, on every broker."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import RabbitMQBroker, SQLiteBroker, Topology
from fusewire.brokers.rabbitmq import Layout
from fusewire.brokers.sqlite import liveness
from fusewire.errors import BrokerError
from tests.support.messages import number_of, numbered, publish_numbered, take, until_depth
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fusewire.brokers import Broker
    from tests.brokers.conftest import Place


@pytest.fixture
def topology(place: Place) -> Topology:
    return dataclasses.replace(place.topology, single=True)


@pytest.fixture
async def broker(place: Place, topology: Topology) -> AsyncIterator[Broker]:
    async with place.open() as opened:
        await opened.create_queue(topology.source)
        await opened.prepare(topology)
        yield opened


async def test_one_receives_and_the_next_takes_over_all_that_is_left_in_order(
    place: Place, broker: Broker, topology: Topology
) -> None:
    lane = topology.parked("other")
    await publish_numbered(broker, lane, range(6))
    async with place.open() as first, place.open() as second:
        active = await first.subscribe(lane, prefetch=3)
        held = await take(active, 3)
        waiting = await second.subscribe(lane, prefetch=10)
        got = asyncio.ensure_future(take(waiting, 5))
        await held[0].done()
        [fourth] = await take(active, 1)  # and not the one that waits, which has more room
        assert number_of(fourth.message) == 3
        assert not got.done()

        await active.release()

        assert [number_of(delivery.message) for delivery in await got] == [1, 2, 3, 4, 5]


async def test_who_comes_back_waits_behind_who_took_over(
    place: Place, broker: Broker, topology: Topology
) -> None:
    lane = topology.parked("other")
    async with place.open() as first, place.open() as second:
        one = await first.subscribe(lane, prefetch=1)
        await broker.publish(lane, numbered(0))
        await take(one, 1)
        other = await second.subscribe(lane, prefetch=1)
        taken = asyncio.ensure_future(take(other, 1))
        await one.release()
        [delivery] = await taken
        again = await first.subscribe(lane, prefetch=1)
        waiting = asyncio.ensure_future(again.receive())
        await broker.publish(lane, numbered(1))
        await delivery.done()
        [following] = await take(other, 1)
        assert number_of(following.message) == 1
        assert not waiting.done()
        waiting.cancel()


async def test_other_queues_are_shared_as_ever(
    place: Place, broker: Broker, topology: Topology
) -> None:
    await publish_numbered(broker, topology.source, range(2))
    async with place.open() as first, place.open() as second:
        await take(await first.subscribe(topology.source, prefetch=1), 1)
        await take(await second.subscribe(topology.source, prefetch=1), 1)


async def test_what_waits_can_be_counted_and_while_nobody_replays_it_be_seen(
    place: Place, broker: Broker, topology: Topology
) -> None:
    lane = topology.parked("other")
    await publish_numbered(broker, lane, range(3))
    assert await broker.peek(lane, limit=2) == [numbered(0), numbered(1)]
    assert [number_of(message) for message in await broker.peek(lane, limit=9)] == [0, 1, 2]
    await until_depth(broker, lane, 3)
    assert await broker.peek(topology.dead, limit=9) == []


async def test_an_empty_lane_has_nothing_to_see(broker: Broker, topology: Topology) -> None:
    assert await broker.peek(topology.parked("other"), limit=5) == []


@pytest.mark.parametrize("place", ["rabbitmq"], indirect=True)
async def test_rabbitmq_shows_messages_to_the_active_consumer_only(
    broker: Broker, topology: Topology
) -> None:
    lane = topology.parked("other")
    subscription = await broker.subscribe(lane, prefetch=1)
    await publish_numbered(broker, lane, range(3))
    await take(subscription, 1)
    with pytest.raises(BrokerError, match="active consumer"):
        await broker.peek(lane, limit=5)
    await until_depth(broker, lane, 2)


@pytest.mark.parametrize("place", ["rabbitmq"], indirect=True)
async def test_a_lane_that_was_made_to_be_shared_is_refused(
    place: Place, broker: Broker, topology: Topology
) -> None:
    shared = dataclasses.replace(topology, source=f"{topology.source}-2", single=False)
    await broker.create_queue(shared.source)
    try:
        await broker.prepare(shared)
        lane = shared.parked("other")
        await broker.publish(lane, numbered(1))
        with pytest.raises(BrokerError, match=r"parked\.other.*x-single-active-consumer"):
            await broker.prepare(dataclasses.replace(shared, single=True))
        await until_depth(broker, lane, 1)
        await broker.prepare(topology)  # again, on lanes that were made for it
    finally:
        await forget(broker, shared)


async def forget(broker: Broker, topology: Topology) -> None:
    assert isinstance(broker, RabbitMQBroker)
    async with broker._consuming.channel() as channel:
        for queue in Layout(topology).queues:
            await channel.queue_delete(queue)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_a_lane_of_a_file_becomes_single_when_it_is_asked_for(place: Place) -> None:
    lane = place.topology.parked("other")
    async with place.open() as first, place.open() as second:
        await first.create_queue(place.topology.source)
        await first.prepare(place.topology)
        await second.prepare(dataclasses.replace(place.topology, single=True))
        active = await first.subscribe(lane, prefetch=1)
        waiting: Any = await second.subscribe(lane, prefetch=1)
        await first.publish(lane, numbered(0))
        await take(active, 1)
        got = asyncio.ensure_future(waiting.receive())
        await first.publish(lane, numbered(1))
        await until(lambda: waiting._look is False)  # it has looked, and got nothing
        assert not got.done()
        got.cancel()


async def test_a_process_that_gives_no_sign_of_life_is_replaced_when_its_lease_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Leases count by the wall clock, as on another system than Linux.
    monkeypatch.setattr(liveness, "clock", lambda: liveness.UNKNOWN)
    monkeypatch.setattr(liveness, "home", lambda: liveness.UNKNOWN)
    topology = Topology("orders", single=True)
    lane = topology.parked("other")
    path = tmp_path / "broker.db"
    async with SQLiteBroker(path) as first:
        await first.create_queue("orders")
        await first.prepare(topology)
        await publish_numbered(first, lane, range(2))
        silent = await first.subscribe(lane, prefetch=1)
        await take(silent, 1)
        # To another clock the lease has ended.
        async with SQLiteBroker(path, clock=lambda: time.time() + 3600) as second:
            deliveries = await take(await second.subscribe(lane, prefetch=2), 2)
            assert [number_of(delivery.message) for delivery in deliveries] == [0, 1]
            assert deliveries[0].redelivered
