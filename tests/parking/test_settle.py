"""Settling while the broker cannot: when it is tried again, and when all goes back."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

from fusewire.brokers import Message, Topology
from fusewire.errors import BrokerUnavailableError
from fusewire.parking._decisions import Done, Recycle
from fusewire.parking._history import History
from fusewire.parking._in_flight import InFlight
from fusewire.parking._settlements import Settlements
from fusewire.parking._settler import Settler
from fusewire.parking._tracing import Tracing
from fusewire.parking._unacknowledged import Unacknowledged
from tests.support.waiting import until


class Stuck:
    """A delivery that its broker cannot settle."""

    def __init__(self) -> None:
        self.tries = 0
        self.message = Message(body=b"a")

    async def done(self) -> None:
        self.tries += 1
        raise BrokerUnavailableError("away")


def settler(stopping: asyncio.Event) -> Settler:
    unused = cast("Any", None)
    return Settler(
        topology=unused,
        dependencies=unused,
        policy=unused,
        identity=None,
        hold_limit=3600,
        stopping=stopping,
        settlements=Settlements(Topology("q"), unused),
        failures=unused,
        unacknowledged=Unacknowledged(),
        marks=unused,
        tracing=Tracing("memory"),
        replies=None,
        publish=AsyncMock(),
        monotonic=lambda: 0.0,
    )


async def test_who_cannot_be_settled_goes_back_with_another_and_not_only_at_its_own_limit() -> None:
    # Or one that has been held for as long as may be would wait for one that came later.
    delivery, receiver = Stuck(), SimpleNamespace(ending=False)
    item = InFlight(
        cast("Any", delivery),
        History(operation_id="a", queue="q"),
        cast("Any", SimpleNamespace(answer=None)),
        0.0,
        cast("Any", receiver),
    )
    settling = asyncio.create_task(settler(asyncio.Event()).settle(item, Done()))
    await until(lambda: delivery.tries >= 2)
    assert not settling.done()
    receiver.ending = True
    assert await asyncio.wait_for(settling, 20) == Recycle(tried=False)
