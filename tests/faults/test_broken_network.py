"""What is between a worker and RabbitMQ is cut, stalled, slow, or loses single frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.testing.faults import Drop
from fusewire.testing.faults._journal import DOUBT
from tests.faults.outage import PARKING, REPLAYING, TIME_LIMIT, Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.testing.faults import FaultProxy
    from tests.faults.outage import Outage

HELD = 3
"""Frames that are dropped before the connection ends, where its prefetch is 4 or more."""


async def noticed(outage: Outage, proxy: FaultProxy) -> None:
    """Wait until the worker is in doubt or connects again, or all messages are through."""
    doubts, accepted = outage.case.times(DOUBT), proxy.accepted
    await outage.come(
        lambda: (
            outage.case.times(DOUBT) > doubts
            or proxy.accepted > accepted
            or outage.far() >= len(outage.case.references)
        ),
        "noticed",
    )


async def cuts(outage: Outage, proxy: FaultProxy) -> None:
    for _ in range(3):
        proxy.cut()
        await outage.further(3)


async def stalls(outage: Outage, proxy: FaultProxy) -> None:
    proxy.stall()
    await noticed(outage, proxy)
    proxy.cut()
    proxy.heal()


async def strands(outage: Outage, proxy: FaultProxy) -> None:
    """Leave the connections half open, until heartbeats tell."""
    accepted = proxy.accepted
    proxy.strand()
    await outage.come(lambda: proxy.accepted > accepted, "connected again")
    await outage.further()


async def slows(outage: Outage, proxy: FaultProxy) -> None:
    proxy.slow(0.05)
    await outage.further()
    proxy.heal()


async def drops_confirms(outage: Outage, proxy: FaultProxy) -> None:
    proxy.drop(Drop.CONFIRMS)
    await noticed(outage, proxy)
    proxy.heal()


async def drops_acknowledgements(outage: Outage, proxy: FaultProxy) -> None:
    proxy.drop(Drop.ACKNOWLEDGEMENTS)
    await outage.come(lambda: proxy.dropped >= HELD, "dropped")
    # TCP does not lose what is in the middle: frames go missing where a connection then ends.
    proxy.cut()
    proxy.heal()


ACKNOWLEDGEMENTS_DROPPED = Fault("acknowledgements dropped", through_proxy=drops_acknowledgements)
FAULTS = [
    Fault("connections cut", through_proxy=cuts),
    Fault("connections stalled", through_proxy=stalls),
    Fault("connections half open", through_proxy=strands),
    Fault("connections slow", through_proxy=slows),
    Fault("confirms dropped", through_proxy=drops_confirms),
    ACKNOWLEDGEMENTS_DROPPED,
]


@pytest.mark.long
@pytest.mark.timeout(TIME_LIMIT)
@pytest.mark.parametrize("during", [PARKING, REPLAYING])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_network_that_breaks_loses_nothing_and_the_worker_goes_on_by_itself(
    survive: Callable[[Fault, str], Awaitable[None]], fault: Fault, during: str
) -> None:
    await survive(fault, during)


async def test_dropped_acknowledgements_lose_nothing(
    survive: Callable[[Fault, str], Awaitable[None]],
) -> None:
    await survive(ACKNOWLEDGEMENTS_DROPPED, PARKING)
