"""Entering the broker: at once if it answers, and else in the background until it does.

A shop and a forwarder start beside their broker, in any order. Until it is there nothing can be
stored, which callers learn, and nothing is forwarded.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fusewire._background import Background
from fusewire._log_fields import fields
from fusewire.errors import BrokerUnavailableError
from fusewire.parking.internal import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from fusewire.brokers import Broker, Topology
    from fusewire.parking.internal import BrokerContact

logger = logging.getLogger("fusewire.forwarding")

_LONGEST_WAIT = 5.0
"""Seconds at most between two attempts to reach the broker."""


class BrokerEntry:
    """The way into a broker, and the queues that are made there.

    Args:
        broker: the broker.
        topologies: the queues, those of calls first.
        contact: is notified whether the broker answers.
        is_entered: whether its owner has entered it, and leaves it.

    Attributes:
        broker: the broker.
        done: set when it is entered, and the queues are there.
    """

    def __init__(
        self,
        broker: Broker,
        topologies: Sequence[Topology],
        contact: BrokerContact,
        *,
        is_entered: bool,
    ) -> None:
        self.broker = broker
        self.done = asyncio.Event()
        self._is_entered = is_entered
        self._topologies = topologies
        self._topology = topologies[0]
        self._contact = contact

    @asynccontextmanager
    async def open(self, use: Callable[[Broker], None]) -> AsyncIterator[None]:
        """Enter the broker for the block, or during it.

        Args:
            use: called once it is entered.

        Raises:
            BrokerError: it was reached, and does not do what it is asked for.
        """
        async with AsyncExitStack() as stack:
            try:
                await self._enter(stack)
            except BrokerUnavailableError as error:
                await stack.enter_async_context(self._entering_later(use, error))
            else:
                use(self.broker)
            yield

    async def _enter(self, stack: AsyncExitStack) -> None:
        failures = self._contact.failures
        async with AsyncExitStack() as attempt:
            if not self._is_entered:
                await attempt.enter_async_context(self.broker)
            for topology in self._topologies:
                await self.broker.create_queue(topology.source)
                await self.broker.prepare(topology)
            await stack.enter_async_context(attempt.pop_all())
        self._contact.answered(failures)
        self.done.set()

    @asynccontextmanager
    async def _entering_later(
        self, use: Callable[[Broker], None], error: BrokerUnavailableError
    ) -> AsyncIterator[None]:
        queue = self._topology.source
        logger.warning(
            "the broker of %r cannot be reached (%s): nothing is stored or forwarded until it can",
            queue,
            error,
            extra=fields("broker.lost", queue=queue),
        )
        self._contact.failed(error)
        later = AsyncExitStack()

        async def until_entered() -> None:
            backoff = Backoff(longest=_LONGEST_WAIT)
            while not self.done.is_set():
                await asyncio.sleep(backoff.draw())
                try:
                    await self._enter(later)
                except BrokerUnavailableError as again:
                    self._contact.failed(again)
            logger.info(
                "the broker of %r is reached", queue, extra=fields("broker.back", queue=queue)
            )
            use(self.broker)

        name = f"the way to the broker of {queue!r}"
        entering = Background(until_entered, name=name, logger=logger)
        try:
            yield
        finally:
            entering.cancel()
            await entering.finish()
            await later.aclose()
