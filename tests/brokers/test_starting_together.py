"""Replicas that start together over new queues all start: what cuts a step off soon passes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest

from fusewire.brokers import RabbitMQBroker, Topology
from fusewire.brokers.rabbitmq import Layout
from fusewire.errors import BrokerUnavailableError
from fusewire.testing.faults import FaultProxy
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from aio_pika.abc import AbstractChannel

    from tests.support.rabbitmq import OwnRabbitMQ


def process_of(queue: str) -> str:
    """Name the process of a quorum queue of the virtual host ``/``, in Erlang."""
    return f"{{'{quote('/', safe='')}_{queue}', node()}}"


async def test_a_lane_whose_process_does_not_run_yet_is_looked_at_again(
    private_rabbitmq: OwnRabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    async def in_erlang(what: str) -> None:
        await asyncio.to_thread(private_rabbitmq.ctl, "eval", what)

    caplog.set_level(logging.DEBUG, "fusewire.brokers.rabbitmq")
    topology = Topology("orders", single=True)
    process = process_of(Layout(topology).parked("other"))
    async with RabbitMQBroker(private_rabbitmq.url, timeout=30) as broker:
        await broker.create_queue("orders")
        await broker.prepare(topology)
        await in_erlang(f"ra:stop_server(quorum_queues, {process}).")
        preparing = asyncio.create_task(broker.prepare(topology))
        await until(lambda: "noproc" in caplog.text or preparing.done(), "RabbitMQ refuses")
        await in_erlang(f"ra:restart_server(quorum_queues, {process}).")
        await asyncio.wait_for(preparing, 60)
    assert "RabbitMQ did not let us look at 'orders.parked.other'" in caplog.text


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[FaultProxy]:
    parts = urlsplit(amqp_url)
    async with FaultProxy(parts.hostname or "localhost", parts.port or 5672) as proxy:
        yield proxy


@pytest.fixture
async def far_broker(amqp_url: str, proxy: FaultProxy) -> AsyncIterator[RabbitMQBroker]:
    credentials, at, _ = urlsplit(amqp_url).netloc.rpartition("@")
    far = urlsplit(amqp_url)._replace(netloc=f"{credentials}{at}127.0.0.1:{proxy.port}")
    async with RabbitMQBroker(far.geturl(), timeout=20) as broker:
        yield broker


@pytest.fixture
def topology(queue_name: str, forget_queue: Callable[[str], None]) -> Iterator[Topology]:
    topology = Topology(queue_name, delays=(0.2,), single=True)
    for queue in Layout(topology).derived:
        forget_queue(queue)
    return topology


def cut_each_first_channel(
    broker: RabbitMQBroker, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Cut the connection whenever a channel was opened on it, every other time; note each cut."""
    link, cuts = broker._consuming, []
    opening = link.open_channel

    async def open_and_cut(*, confirms: bool) -> AbstractChannel:
        channel = await opening(confirms=confirms)
        if len(cuts) % 2 == 0:
            proxy.cut()
        cuts.append("cut" if len(cuts) % 2 == 0 else "whole")
        return channel

    monkeypatch.setattr(link, "open_channel", open_and_cut)
    return cuts


STEPS: dict[str, Callable[[RabbitMQBroker, Topology], Awaitable[Any]]] = {
    "create_queue": lambda broker, topology: broker.create_queue(topology.source),
    "prepare": lambda broker, topology: broker.prepare(topology),
    "receivers": lambda broker, topology: broker.receivers(topology.source),
    "depth": lambda broker, topology: broker.depth(topology.parked("other")),
    "queue_types": lambda broker, topology: broker.queue_types([topology.source]),
    "is_marked": lambda broker, topology: broker.is_marked(topology.source, "one"),
    "subscribe": lambda broker, topology: broker.subscribe(topology.source, prefetch=1),
}


@pytest.mark.parametrize("name", STEPS)
async def test_a_step_that_a_lost_connection_cut_off_is_taken_again(
    name: str,
    far_broker: RabbitMQBroker,
    proxy: FaultProxy,
    topology: Topology,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await far_broker.create_queue(topology.source)
    await far_broker.prepare(topology)
    cuts = cut_each_first_channel(far_broker, proxy, monkeypatch)
    await asyncio.wait_for(STEPS[name](far_broker, topology), 60)
    assert "cut" in cuts
    assert "whole" in cuts


async def test_a_step_that_is_cut_off_each_time_fails_within_its_limit(
    far_broker: RabbitMQBroker,
    proxy: FaultProxy,
    topology: Topology,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await far_broker.create_queue(topology.source)
    monkeypatch.setattr(far_broker._consuming, "_timeout", 0.5)
    opening = far_broker._consuming.open_channel

    async def open_and_cut(*, confirms: bool) -> AbstractChannel:
        channel = await opening(confirms=confirms)
        proxy.cut()
        return channel

    monkeypatch.setattr(far_broker._consuming, "open_channel", open_and_cut)
    with pytest.raises(BrokerUnavailableError):
        await asyncio.wait_for(far_broker.depth(topology.source), 30)


async def test_a_broker_that_is_left_meanwhile_is_not_connected_again(
    far_broker: RabbitMQBroker,
    proxy: FaultProxy,
    topology: Topology,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "fusewire.brokers.rabbitmq")
    await far_broker.create_queue(topology.source)
    cut_each_first_channel(far_broker, proxy, monkeypatch)
    looking = asyncio.create_task(far_broker.depth(topology.source))
    await until(lambda: "tried again" in caplog.text)
    await far_broker._consuming.close()
    with pytest.raises(BrokerUnavailableError):
        await asyncio.wait_for(looking, 30)
    assert far_broker._consuming._connection is None
