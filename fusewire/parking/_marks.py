"""Marks of attempts by themselves that have begun: they distinguish a crash from any other return.

A message comes back unsettled because its process crashed, because its connection was lost, or
because it was on its way to a consumer that ended and was never given to a handler. The broker
says the same of all of them. So a mark is stored before the handler is called, and taken away
when that process lives to see the handler's end or the loss of the delivery, and before anything
begins beside a handler that takes long. A mark that is left says that the handler was called by
itself and that its process ended with it.

Nothing can be written onto a message that is in flight, and the consumer that gets the message next
can look for a mark.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from fusewire._background import Background
from fusewire.errors import BrokerError, BrokerUnavailableError
from fusewire.parking import _solitude
from fusewire.parking._decisions import CRASHES
from fusewire.parking._waiting import Backoff

if TYPE_CHECKING:
    from fusewire.brokers import Broker, Delivery, Topology
    from fusewire.parking._in_flight import InFlight

logger = logging.getLogger("fusewire.parking")

_LOOK = 0.5
"""Seconds between looks at whether the delivery was lost."""

_LONGEST_WAIT = 60.0
"""Seconds at most until a mark that could not be taken away is tried again."""


class Marks:
    """Makes marks, looks for them, and takes them away. All in doubt counts for the message.

    Args:
        broker: where they are stored.
        topology: of the queue that they are about.
    """

    def __init__(self, broker: Broker, topology: Topology) -> None:
        self._broker = broker
        self._queue = topology.source
        self._made: dict[Delivery, tuple[str, Background]] = {}
        self._owed: set[str] = set()

    async def begin(self, item: InFlight) -> None:
        """Mark that the handler of `item`, which is alone, is called next."""
        name = _name(item.history.operation_id, item.lone)
        self._owed.discard(name)
        try:
            await self._broker.mark(self._queue, name)
        except BrokerUnavailableError as error:
            logger.info(
                "operation %s is handled without a mark: %s", item.history.operation_id, error
            )
        except BrokerError as error:
            logger.warning(
                "if operation %s kills this process, it cannot be counted, and the message is "
                "tried again and again: %s",
                item.history.operation_id,
                error,
            )
            name = ""
        watch = Background(
            partial(self._take_away_early, item.delivery, name),
            name=f"the watch over the mark of operation {item.history.operation_id}",
            logger=logger,
            longest_wait=_LONGEST_WAIT,
        )
        self._made[item.delivery] = name, watch

    async def end(self, delivery: Delivery) -> None:
        """Take away the mark of `delivery`, if it has one: this process has lived to do so."""
        made = self._made.pop(delivery, None)
        if made is None:
            return
        name, watch = made
        if watch.done:
            return  # it was taken away; another process may have made one of the name since
        watch.cancel()
        if name:
            self._owed.add(name)
        await self.pay()

    async def pay(self) -> None:
        """Take away what could not be taken away before."""
        for name in list(self._owed):
            try:
                await self._broker.unmark(self._queue, name)
            except BrokerError as error:
                logger.info("the mark %r stays for now: %s", name, error)
                return
            except Exception:
                logger.exception("the mark %r stays for now", name)
                return
            self._owed.discard(name)

    async def left(self, operation_id: str) -> set[int]:
        """Return which attempts of a message began and did not end."""
        await self.pay()
        return {number for number in _NUMBERS if await self._exists(operation_id, number)}

    async def clear(self, operation_id: str) -> None:
        """Take away all marks of a message that was settled, or was not suspected until now."""
        for number in await self.left(operation_id):
            self._owed.add(_name(operation_id, number))
        await self.pay()

    async def _exists(self, operation_id: str, number: int) -> bool:
        name = _name(operation_id, number)
        try:
            return await self._broker.is_marked(self._queue, name) and name not in self._owed
        except BrokerError as error:
            logger.info("cannot look for the mark %r: %s", name, error)
            return False

    async def _take_away_early(self, delivery: Delivery, name: str) -> None:
        """Take the mark away while the handler runs, if that goes on lost or not alone."""
        while not (delivery.lost or _solitude.process.asked(delivery)):  # noqa: ASYNC110 - no event
            await asyncio.sleep(_LOOK)
        if name:
            self._owed.add(name)
        await self.pay()
        backoff = Backoff(longest=_LONGEST_WAIT)
        while name in self._owed:
            await asyncio.sleep(backoff.draw())
            await self.pay()
        _solitude.process.share(delivery)  # not before, or their crash would be this message's


_NUMBERS = range(1, CRASHES + 1)
_DIGEST = 16  # hexadecimal digits of an operation id's digest: 64 bits


def _name(operation_id: str, number: int) -> str:
    """Return the mark of an operation's attempt by itself. Stored: it stays as it is."""
    digest = hashlib.sha256(operation_id.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    return f"{digest}.{number}"
