"""RabbitMQ is killed, has no memory left, or closes a channel, while a worker parks and replays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import RabbitMQBroker
from fusewire.testing.faults._journal import DOUBT
from tests.faults.outage import FEW, PARKING, REPLAYING, TIME_LIMIT, Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.outage import Outage

TIMEOUT_MS, TICK_MS = 600, 200
"""For how long RabbitMQ lets a delivery be held, and how often it looks."""
USUAL = {"consumer_timeout": 1_800_000, "channel_tick_interval": 60_000}


async def queues_are_on_the_disk(outage: Outage) -> None:
    """Make all queues, and have it written which there are; see OwnRabbitMQ.kill."""
    async with RabbitMQBroker(outage.rabbitmq.url) as broker:
        await broker.prepare(outage.topology)
    await outage.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")


async def killed(outage: Outage) -> None:
    await asyncio.to_thread(outage.rabbitmq.kill)
    # What RabbitMQ was giving back from a delay queue it may give back again: at least once.
    outage.case.on_the_way_back |= outage.delayed
    await asyncio.to_thread(outage.rabbitmq.start)


async def killed_twice(outage: Outage) -> None:
    await killed(outage)
    await outage.further()
    await killed(outage)


async def has_no_memory(outage: Outage) -> None:
    """Have RabbitMQ block all that publish, until a move has failed and another waits."""
    if outage.during == REPLAYING:
        outage.payments.kill()  # what is replayed now has to be moved
        await outage.order(outage.more(FEW))
    doubts = outage.case.times(DOUBT)
    usual = (await outage.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().")).strip()
    await outage.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        await outage.come(lambda: outage.case.times(DOUBT) > doubts, "in doubt")
    finally:  # others use this RabbitMQ after us
        await outage.ctl("set_vm_memory_high_watermark", usual)
    if outage.during == REPLAYING:
        outage.payments.start()


async def _hold_limit(outage: Outage, limits: dict[str, int]) -> None:
    for name, value in limits.items():
        await outage.ctl("eval", f"application:set_env(rabbit, {name}, {value}).")


async def has_its_usual_patience(outage: Outage) -> None:
    await _hold_limit(outage, USUAL)


async def has_little_patience(outage: Outage) -> None:
    await _hold_limit(outage, {"consumer_timeout": TIMEOUT_MS, "channel_tick_interval": TICK_MS})
    if outage.during == PARKING:
        await outage.takes_only(FEW)


async def closes_channels(outage: Outage) -> None:
    """Let the worker hold messages for longer than RabbitMQ allows."""
    if outage.during == REPLAYING:
        outage.payments.kill()
    await outage.ended(2)
    await has_its_usual_patience(outage)
    if outage.during == PARKING:
        await outage.takes_all()
    else:
        outage.payments.start()


BROKER_KILLED = Fault("broker killed", killed, queues_are_on_the_disk)
FAULTS = [
    Fault("broker killed, twice", killed_twice, queues_are_on_the_disk, messages=8000),
    Fault("memory alarm", has_no_memory, messages=4000),
    Fault(
        "channels closed by the broker",
        closes_channels,
        before=has_little_patience,
        after=has_its_usual_patience,  # others use this RabbitMQ after us
    ),
]


@pytest.mark.long
@pytest.mark.timeout(TIME_LIMIT)
@pytest.mark.parametrize("during", [PARKING, REPLAYING])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_broker_that_fails_loses_nothing_and_the_worker_goes_on_by_itself(
    survive: Callable[[Fault, str], Awaitable[None]], fault: Fault, during: str
) -> None:
    await survive(fault, during)


@pytest.mark.parametrize("during", [PARKING, REPLAYING])
async def test_a_killed_broker_loses_nothing(
    survive: Callable[[Fault, str], Awaitable[None]], during: str
) -> None:
    await survive(BROKER_KILLED, during)
