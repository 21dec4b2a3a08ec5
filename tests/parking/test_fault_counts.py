"""What goes wrong between a consumer and its broker is counted."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock

import pytest

from fusewire.brokers import Message, Topology
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
    MoveRefusedError,
    QueueNotFoundError,
    UnconfirmedError,
)
from fusewire.parking._decisions import Dead
from fusewire.parking._fault_counts import FaultCounts
from fusewire.parking._history import History
from fusewire.parking._in_flight import InFlight
from fusewire.parking._settlements import Settlements
from fusewire.parking._settler import Settler
from fusewire.parking._tracing import Tracing
from fusewire.parking._unacknowledged import Unacknowledged
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

NONE = {"refused": 0, "unavailable": 0, "unconfirmed": 0}


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MoveRefusedError("full"), "refused"),
        (QueueNotFoundError("gone"), "refused"),
        (BrokerUnavailableError("away"), "unavailable"),
        (UnconfirmedError("late"), "unconfirmed"),
    ],
)
def test_a_refusal_is_counted_by_why(error: BrokerError, why: str) -> None:
    counts = FaultCounts()
    before = counts.moves_refused
    counts.note_refusal(error)
    assert before == NONE
    assert counts.moves_refused == {**NONE, why: 1}


class Refused:
    """A delivery whose moves fail."""

    redelivered = returned = False

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.message = Message(body=b"a")

    async def move(self, *_: object, **__: object) -> None:
        raise self._error


def settling(error: Exception) -> tuple[Settlements, asyncio.Task[Any]]:
    unused = cast("Any", None)
    settlements = Settlements(Topology("q"), unused)
    settler = Settler(
        topology=Topology("q"),
        dependencies=unused,
        policy=unused,
        identity=None,
        hold_limit=3600,
        stopping=asyncio.Event(),
        settlements=settlements,
        failures=unused,
        unacknowledged=Unacknowledged(),
        marks=unused,
        tracing=Tracing("memory"),
        replies=None,
        publish=AsyncMock(),
        monotonic=lambda: 0.0,
    )
    history = History(operation_id="a", queue="q")
    receiver = cast("Any", SimpleNamespace(ending=False, lane=""))
    item = InFlight(cast("Any", Refused(error)), history, unused, 0.0, receiver)
    return settlements, asyncio.create_task(settler.settle(item, Dead(history)))


async def test_every_move_that_fails_is_counted() -> None:
    settlements, task = settling(MoveRefusedError("full"))
    await until(lambda: settlements.faults.moves_refused["refused"] >= 2)
    task.cancel()
    await asyncio.wait({task})


async def test_a_delivery_that_is_lost_was_not_refused() -> None:
    settlements, task = settling(DeliveryLostError("gone"))
    await task
    assert settlements.faults.moves_refused == NONE


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
async def test_messages_that_come_again_are_counted(bench: Bench) -> None:
    release, began = asyncio.Event(), asyncio.Event()

    async def handler(_: AbstractIncomingMessage) -> None:
        began.set()
        await release.wait()

    await bench.send("a")
    async with bench.consumer(handler) as consumer:
        await asyncio.wait_for(began.wait(), 20)
        status = consumer.status()
        assert (status.redelivered, status.moves_refused) == (0, NONE)
        await bench.drop_connection()
        await until(lambda: consumer.status().redelivered == 1)
        release.set()
        await until(lambda: bench.happened("handled") == ["a"])
