"""How many replicas there are: the receivers of the source queue, as its broker counts them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fusewire._throttle import Throttle
from fusewire.errors import BrokerError
from fusewire.parking._status_watch import NO_ANSWER

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers import Broker

logger = logging.getLogger("fusewire.parking")

ASSUMED_REPLICAS = 10
"""What is assumed where nobody counts. A figure that is wrong by a factor of ten does no harm, so
this one is good for 1 to 100 replicas."""


class Replicas:
    """Counts the replicas that receive from a source queue, this one included.

    Args:
        broker: counts them. One that was written before :meth:`Broker.receivers` was part of the
            protocol cannot: then `ASSUMED_REPLICAS` are assumed, and the log says so once.
        source: the name of the source queue.

    Attributes:
        receives: returns whether this replica receives from the source now. A consumer that keeps
            its queue's order stops in an outage, as others do, and nobody is counted meanwhile.
    """

    def __init__(self, broker: Broker, source: str) -> None:
        self._broker = broker
        self._source = source
        self._latest = ASSUMED_REPLICAS
        self._counts = True
        self._known = False
        self._troubles = Throttle()
        self.receives: Callable[[], bool] = lambda: True

    @property
    def known(self) -> bool:
        """Whether they were counted, or cannot be."""
        return self._known or not self._counts

    async def count(self) -> int:
        """Return how many there are: the latest known number, where they cannot be counted now."""
        if self._counts and (self.receives() or not self._known):
            try:
                counted = await self._ask()
            except BrokerError as error:
                # That a broker does not answer is a line of its contact's, not one of each lane.
                quiet = isinstance(error, NO_ANSWER) or self._troubles.unsaid(error) is None
                logger.log(
                    logging.DEBUG if quiet else logging.WARNING,
                    "the receivers of %r were not counted: %s",
                    self._source,
                    error,
                )
                counted = 0
            # This replica is one of them, so 0 is no count: it has paused, or subscribes again.
            self._latest = counted or self._latest
            self._known = self._known or counted > 0
        return self._latest

    async def _ask(self) -> int:
        ask = getattr(self._broker, "receivers", None)
        # A class that inherits from the protocol has its empty method, which returns None.
        counted: int | None = None if ask is None else await ask(self._source)
        if counted is None:
            self._counts = False
            logger.warning(
                "%r does not count receivers, so the replays of %r assume %d replicas: give it the "
                'method receivers(), or use ReplayPolicy(scope="cluster") if there are more than a '
                "hundred",
                self._broker,
                self._source,
                ASSUMED_REPLICAS,
            )
        return counted or 0
