"""How a store of calls stands while nothing is forwarded from it in this process."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fusewire._background import Background
from fusewire._log_fields import fields
from fusewire.breaker import CircuitState
from fusewire.forwarding._lane_progress import LaneProgress
from fusewire.parking.internal import (
    BrokerContact,
    LaneState,
    StatusWatch,
    keep_all_running,
    status_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from fusewire.breaker import BreakerRegistry
    from fusewire.brokers import Broker, Station, Topology
    from fusewire.forwarding._park_log import ParkLog
    from fusewire.parking import ConsumerStatus
    from fusewire.parking.internal import Dependencies, LaneLog, Reading, Settlements

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
        counts: whether what waits in the lanes is counted all the time.

    Attributes:
        contact: whether the broker answers.
        watch: knows how many calls wait in a lane.
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
        counts: bool,
    ) -> None:
        self._lanes = settlements.lanes
        self._faults = settlements.faults
        self._log = log
        self._forwards = forwards
        self._topology = topology
        self._dependencies = dependencies
        self._registry = registry
        self.contact = BrokerContact(topology.source)
        self.watch = StatusWatch(topology, self.contact)
        self._counts = counts
        self._progress = {lane: LaneProgress() for lane in topology.lanes}

    @asynccontextmanager
    async def watching(self, broker: Broker) -> AsyncIterator[None]:
        """Keep it up to date for the block, whether or not `broker` can be reached."""
        stopping = asyncio.Event()
        name = f"the status of {self._topology.source!r}"
        watch = partial(self.watch.run, broker, stopping, to_count=self._to_count, look=self._look)
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
        return status_of(self._topology, self.watch, None, self._lane, self._faults, running=False)

    def _to_count(self) -> list[Station]:
        if self._counts:
            return [self._topology.parked(lane) for lane in self._topology.lanes]
        return [] if self._forwards() else self._lanes.to_count()

    def _look(self) -> None:
        self._log.look()
        if not self._forwards():
            now = time.monotonic()
            for lane, log in self._lanes:
                reading = self.watch.reading(log.station, now)
                self._look_for_progress(lane, log, reading)
                log.look(reading, in_flight=0)

    def _look_for_progress(self, lane: str, log: LaneLog, reading: Reading | None) -> None:
        """Warn of calls that nobody forwards."""
        states = self._states((*self._dependencies.members(lane), *log.circuits))
        closed = all(state is CircuitState.CLOSED for state in states.values())
        ready, at = (None, 0.0) if reading is None else reading
        seconds = self._progress[lane].note(ready, at, closed=closed)
        if seconds is not None:
            logger.warning(
                "%s calls wait in %s although their circuits are closed, and none has left it for "
                "%.0f s: nobody forwards it, or somebody with other lanes=",
                ready,
                log.station,
                seconds,
                extra=fields(
                    "lane.stuck",
                    queue=self._topology.source,
                    lane=lane,
                    count=ready,
                    seconds=round(seconds, 3),
                ),
            )

    def _lane(self, lane: str) -> LaneState:
        states = self._states(self._dependencies.members(lane))
        open_ones = tuple(name for name, state in states.items() if state in _OPEN)
        return LaneState(None, open_ones, {}, None, self._progress[lane].stuck)

    def _states(self, names: Iterable[str]) -> dict[str, CircuitState]:
        found = map(self._registry.find, names)
        return {breaker.name: breaker.look().state for breaker in found if breaker is not None}
