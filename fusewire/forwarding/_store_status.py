"""How a store of calls stands while nothing is forwarded from it in this process."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fusewire.breaker import CircuitState
from fusewire.parking.internal import (
    BrokerContact,
    LaneState,
    StatusWatch,
    keep_all_running,
    status_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fusewire.breaker import BreakerRegistry
    from fusewire.brokers import Broker, Topology
    from fusewire.parking import ConsumerStatus
    from fusewire.parking.internal import Dependencies

_OPEN = (CircuitState.OPEN, CircuitState.FORCED_OPEN)


class StoreStatus:
    """The status of a store of calls.

    Args:
        topology: the queues.
        dependencies: which lane is for which breaker.
        registry: where the breakers are.

    Attributes:
        contact: whether the broker answers.
    """

    def __init__(
        self, topology: Topology, dependencies: Dependencies, registry: BreakerRegistry
    ) -> None:
        self._topology = topology
        self._dependencies = dependencies
        self._registry = registry
        self.contact = BrokerContact()
        self._watch = StatusWatch(topology, self.contact)

    @asynccontextmanager
    async def watching(self, broker: Broker) -> AsyncIterator[None]:
        """Keep it up to date for the block, in which `broker` answers."""
        self.contact.answered()
        stopping = asyncio.Event()
        name = f"the status of {self._topology.source!r}"
        watch = partial(self._watch.run, broker, stopping)
        watching = asyncio.create_task(keep_all_running({name: watch}, stopping), name=name)
        try:
            yield
        finally:
            stopping.set()
            await asyncio.wait({watching})
            self.contact.left()

    def read(self) -> ConsumerStatus:
        """Return it. Safe to call from any thread."""
        return status_of(self._topology, self._watch, None, self._lane, running=False)

    def _lane(self, lane: str) -> LaneState:
        registry = self._registry
        names = self._dependencies.members(lane)
        looks = {name: registry.get(name).look() for name in names if name in registry}
        open_ones = tuple(name for name, look in looks.items() if look.state in _OPEN)
        return LaneState(None, open_ones, {}, None)
