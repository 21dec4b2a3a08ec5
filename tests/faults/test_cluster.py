"""The node of a three-node cluster that leads the queues is killed, while a worker moves."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import RabbitMQBroker
from tests.faults.outage import PARKING, REPLAYING, TIME_LIMIT, Fault, Outage
from tests.faults.queue_client import queues
from tests.support.rabbitmq import NoRabbitMQError
from tests.support.rabbitmq_node import PrivateNode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.conftest import Survive


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[PrivateNode]]:
    """Provide three nodes of one cluster."""
    with contextlib.ExitStack() as stack:
        try:
            first = stack.enter_context(contextlib.closing(PrivateNode()))
        except NoRabbitMQError as error:
            pytest.skip(f"needs a RabbitMQ that can be started three times: {error}")
        others = [
            stack.enter_context(contextlib.closing(PrivateNode(beside=first))) for _ in range(2)
        ]
        yield [first, *others]


@pytest.mark.long
@pytest.mark.timeout(TIME_LIMIT)
@pytest.mark.parametrize("during", [PARKING, REPLAYING])
async def test_a_killed_leader_loses_nothing_and_the_worker_goes_on_by_itself(
    cluster: list[PrivateNode], survive_on: Survive, during: str
) -> None:
    ours, leader, _ = cluster
    leader.start()

    async def is_led_by_another_node(outage: Outage) -> None:
        async with RabbitMQBroker(leader.url) as broker:
            await broker.prepare(outage.topology)
        leaders = await asyncio.to_thread(ours.ctl, "list_queues", "name", "leader")
        by_queue = dict(line.split("\t") for line in leaders.splitlines()[1:])
        assert {by_queue[queue] for queue in queues(outage.case.queue)} == {leader.name}

    async def leader_is_killed(outage: Outage) -> None:
        await asyncio.to_thread(leader.kill)
        # What it was giving back from a delay queue the next leader may give back again.
        outage.case.on_the_way_back |= outage.delayed
        await outage.further()
        await asyncio.to_thread(leader.start)

    fault = Fault(
        "leader of a three-node cluster killed",
        leader_is_killed,
        is_led_by_another_node,
        messages=5000,
    )
    await survive_on(fault, during, rabbitmq=ours, client_url=leader.url)
