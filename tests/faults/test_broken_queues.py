"""Queues are deleted, full, or made otherwise, while a worker parks and replays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers.rabbitmq import Layout
from tests.faults.outage import FEW, LONG, PARKING, REPLAYING, TIME_LIMIT, Fault
from tests.faults.queue_client import QUORUM, queues

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.outage import Outage

MANY = 1000 if LONG else 20
"""Messages that are published after a queue was deleted."""
CLASSIC: dict[str, Any] = {"x-max-length": 10**6, "x-overflow": "reject-publish"}
"""A queue that stands where ours should, and that somebody made with other arguments."""
LANE: dict[str, Any] = {**QUORUM, "x-overflow": "reject-publish"}


async def has_little_room(outage: Outage) -> None:
    if outage.during == PARKING:
        await outage.takes_only(FEW)


async def parking_queue_is_full(outage: Outage) -> None:
    """Let the lane take no more until the worker has been refused some times."""
    if outage.during == REPLAYING:
        outage.payments.kill()  # what is replayed now has to be parked again
        await outage.takes_only(1)
    await outage.refused()
    await outage.takes_all()
    if outage.during == REPLAYING:
        outage.payments.start()


async def parking_queue_is_replaced(outage: Outage) -> None:
    """Delete it and make it again at once, of which RabbitMQ 3.10 does not inform its consumers."""
    await outage.delete_lane(make_again=LANE)
    if outage.during == REPLAYING:
        outage.payments.kill()
        await outage.order(outage.more(MANY))
        await outage.all_parked()
        outage.payments.start()


def parking_queue_is_deleted(
    made_again: dict[str, Any],
) -> Callable[[Outage], Awaitable[None]]:
    async def strike(outage: Outage) -> None:
        await outage.delete_lane()
        if outage.during == PARKING:
            await outage.refused()  # nothing is consumed that cannot be parked
            await outage.client.declare(outage.lane, made_again)
            return
        outage.payments.kill()
        await outage.order(outage.more(MANY))
        await outage.refused()
        await outage.client.declare(outage.lane, made_again)
        await outage.all_parked()
        outage.payments.start()

    return strike


async def source_queue_is_deleted(outage: Outage) -> None:
    await outage.delete_source()
    await outage.client.declare(outage.case.queue)
    await outage.order(outage.more(MANY, failing=False))


async def source_queue_is_deleted_under_delayed_messages(outage: Outage) -> None:
    """Delete it, and make it again when messages of a delay queue have been due before that.

    RabbitMQ tries every three minutes to give back what it could not.
    """
    await outage.delete_source()
    delay = Layout(outage.topology).delay(outage.topology.delays[0])
    delayed = outage.more(FEW, failing=False)
    outage.case.references += delayed
    await outage.client.order(delay, delayed, {})

    async def are_due() -> bool:
        return await outage.client.count(delay) < len(delayed)

    await outage.come(are_due, "due")
    await outage.client.declare(outage.case.queue)
    await outage.order(outage.more(MANY, failing=False))


async def are_made_by_somebody_else(outage: Outage) -> None:
    for queue in queues(outage.case.queue):
        if queue == outage.lane or queue.endswith(".dead"):
            await outage.client.declare(queue, CLASSIC)


async def worker_starts_anew(outage: Outage) -> None:
    await outage.stop_worker()
    outage.start_worker(outage.rabbitmq.url)
    await outage.further(FEW)


async def server_will_think(outage: Outage) -> None:
    """Have the server commit each charge some time before it replies."""
    outage.payments.think_time = 0.3


async def server_dies_before_its_replies(outage: Outage) -> None:
    """Kill it with charges that it has committed and not replied to; and the lane is gone."""
    await outage.delete_lane()
    await outage.order(outage.more(MANY, failing=False))
    charged = outage.payments.charges()
    await outage.come(lambda: outage.payments.charges() > charged, "one more charged")
    outage.payments.kill()
    await outage.refused()
    await outage.client.declare(outage.lane, LANE)
    outage.payments.think_time = 0.0
    outage.payments.start()


FULL = Fault("parking queue full", parking_queue_is_full, has_little_room)
DELETED = Fault("parking queue deleted", parking_queue_is_deleted(LANE))
FAULTS = [
    FULL,
    DELETED,
    Fault("parking queue deleted, made otherwise", parking_queue_is_deleted(CLASSIC)),
    Fault("parking queue deleted and made again at once", parking_queue_is_replaced),
    Fault("queues made otherwise", worker_starts_anew, are_made_by_somebody_else),
    Fault("source queue deleted", source_queue_is_deleted, failing=False),
]


@pytest.mark.long
@pytest.mark.timeout(TIME_LIMIT)
@pytest.mark.parametrize("during", [PARKING, REPLAYING])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_queues_that_fail_lose_nothing_and_the_worker_goes_on_by_itself(
    survive: Callable[[Fault, str], Awaitable[None]], fault: Fault, during: str
) -> None:
    await survive(fault, during)


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="RabbitMQ tries again after three minutes only")
@pytest.mark.timeout(TIME_LIMIT)
async def test_delayed_messages_come_back_to_a_source_queue_that_was_made_again(
    survive: Callable[[Fault, str], Awaitable[None]],
) -> None:
    strike = source_queue_is_deleted_under_delayed_messages
    await survive(Fault("source queue deleted under delayed messages", strike), REPLAYING)


async def test_a_server_that_dies_between_effects_and_replies_is_asked_again_and_that_is_explained(
    survive: Callable[[Fault, str], Awaitable[None]],
) -> None:
    strike = server_dies_before_its_replies
    await survive(Fault("server killed before its replies", strike, server_will_think), REPLAYING)


async def test_a_full_parking_queue_loses_nothing(
    survive: Callable[[Fault, str], Awaitable[None]],
) -> None:
    await survive(FULL, PARKING)


async def test_a_deleted_parking_queue_loses_nothing_but_what_was_in_it(
    survive: Callable[[Fault, str], Awaitable[None]],
) -> None:
    await survive(DELETED, PARKING)


async def test_a_deleted_source_queue_is_consumed_again_when_it_is_made_again(
    survive: Callable[[Fault, str], Awaitable[None]],
) -> None:
    await survive(Fault("source queue deleted", source_queue_is_deleted, failing=False), PARKING)
