"""Lanes with one active receiver, on every broker."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import RabbitMQBroker, SQLiteBroker, Topology
from fusewire.brokers.rabbitmq import Layout, _subscription
from fusewire.brokers.rabbitmq._arguments import queue_arguments
from fusewire.brokers.sqlite import _liveness as liveness
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


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_subscription, "_LOOK", 0.02)


@pytest.mark.usefixtures("quick_watch")
@pytest.mark.parametrize("place", ["rabbitmq"], indirect=True)
async def test_who_waits_for_its_turn_notices_that_the_lane_was_made_again(
    broker: Broker, topology: Topology
) -> None:
    # RabbitMQ 3.10 says nothing of it: the consumer's channel stays open and gets nothing.
    lane = topology.parked("other")
    subscription = await broker.subscribe(lane, prefetch=1)
    assert isinstance(broker, RabbitMQBroker)
    async with broker._consuming.channel() as channel:
        await channel.queue_delete(str(lane))
        arguments = queue_arguments(Layout(topology), await broker.version())[str(lane)]
        await channel.declare_queue(str(lane), durable=True, arguments=arguments)
    await publish_numbered(broker, lane, range(3))
    with pytest.raises(BrokerError):
        await asyncio.wait_for(subscription.receive(), 20)
    await subscription.release()
    await until_depth(broker, lane, 3)
    again = await broker.subscribe(lane, prefetch=3)
    assert len(await take(again, 3)) == 3
    await again.release()


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
