"""How a store of calls stands while nothing is forwarded from it in this process."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fusewire._background import Background
from fusewire.breaker import CircuitState
from fusewire.parking.internal import (
    BrokerContact,
    LaneState,
    StatusWatch,
    keep_all_running,
    status_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fusewire.breaker import BreakerRegistry
    from fusewire.brokers import Broker, Station, Topology
    from fusewire.forwarding._park_log import ParkLog
    from fusewire.parking import ConsumerStatus
    from fusewire.parking.internal import Dependencies, Settlements

logger = logging.getLogger("fusewire.forwarding")

_OPEN = (CircuitState.OPEN, CircuitState.FORCED_OPEN)


class StoreStatus:
    """The status of a store of calls.

    Args:
        topology: the queues.
        dependencies: which lane is for which breaker.
        registry: where the breakers are.
        settlements: what is reported of stored calls.
        log: the log of calls that were not parked.
        forwards: returns whether a forwarder runs, which then looks after these logs.

    Attributes:
        contact: whether the broker answers.
    """

    def __init__(
        self,
        topology: Topology,
        dependencies: Dependencies,
        registry: BreakerRegistry,
        settlements: Settlements,
        log: ParkLog,
        *,
        forwards: Callable[[], bool],
    ) -> None:
        self._lanes = settlements.lanes
        self._faults = settlements.faults
        self._log = log
        self._forwards = forwards
        self._topology = topology
        self._dependencies = dependencies
        self._registry = registry
        self.contact = BrokerContact(topology.source)
        self._watch = StatusWatch(topology, self.contact)

    @asynccontextmanager
    async def watching(self, broker: Broker) -> AsyncIterator[None]:
        """Keep it up to date for the block, whether or not `broker` can be reached."""
        stopping = asyncio.Event()
        name = f"the status of {self._topology.source!r}"
        watch = partial(self._watch.run, broker, stopping, to_count=self._to_count, look=self._look)
        keep = partial(keep_all_running, {name: watch}, stopping)
        watching = Background(keep, name=name, logger=logger)
        try:
            yield
        finally:
            stopping.set()
            await watching.finish()
            self._log.end()
            self.contact.left()

    def read(self) -> ConsumerStatus:
        """Return it. Safe to call from any thread."""
        return status_of(self._topology, self._watch, None, self._lane, self._faults, running=False)

    def _to_count(self) -> list[Station]:
        return [] if self._forwards() else self._lanes.to_count()

    def _look(self) -> None:
        self._log.look()
        if not self._forwards():
            now = time.monotonic()
            for _, log in self._lanes:
                log.look(self._watch.reading(log.station, now), in_flight=0)

    def _lane(self, lane: str) -> LaneState:
        found = map(self._registry.find, self._dependencies.members(lane))
        looks = {breaker.name: breaker.look() for breaker in found if breaker is not None}
        open_ones = tuple(name for name, look in looks.items() if look.state in _OPEN)
        return LaneState(None, open_ones, {}, None)
