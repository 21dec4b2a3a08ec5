"""What a status needs that has to be asked for: depths, and whether broker and event loop answer.

It is asked for in the background, and only while somebody reads the status. So a scrape waits for
nothing, and a consumer that nobody looks at asks its broker for nothing.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import TYPE_CHECKING, NamedTuple

from fusewire.errors import BrokerError, BrokerUnavailableError, UnconfirmedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers import Broker, Station, Topology

_BEAT = 1.0
"""Seconds between notes that the event loop turns, and looks whether depths are wanted."""

_INTERVAL = 5.0
"""Seconds between counts at least; a fifth more at most, so that replicas do not ask together."""

_LEAVE = 1.0
"""Seconds that a count which was cancelled may still take."""

_WANTED = 300.0
"""Seconds after a status was read for which depths are counted: some are scraped once a minute."""

_FRESH = 30.0
"""Seconds after which a depth that could not be counted again is not known any more."""


_NO_ANSWER = (BrokerUnavailableError, UnconfirmedError)


class BrokerContact:
    """Whether the broker answered when it was last asked for something.

    Attributes:
        answers: whether it did.
        since: since when that is so, in monotonic seconds.

    Args:
        monotonic: the clock.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.answers = False
        self.since = monotonic()

    def answered(self) -> None:
        """Note that it answered."""
        self._note(answers=True)

    def failed(self, error: BrokerError) -> None:
        """Note an error. A broker that has no such queue has answered."""
        self._note(answers=not isinstance(error, _NO_ANSWER))

    def left(self) -> None:
        """Note that it was left."""
        self._note(answers=False)

    def _note(self, *, answers: bool) -> None:
        if answers is not self.answers:
            self.answers, self.since = answers, self._monotonic()


class Reading(NamedTuple):
    """How many messages waited in a station, and when they were counted, in monotonic seconds."""

    ready: int
    at: float


class StatusWatch:
    """Counts what waits in the stations of a queue, and notes that its event loop turns.

    Attributes:
        contact: whether the broker answers.
        turned_at: when the event loop was last seen to turn, in monotonic seconds; None while it is
            not watched.

    Args:
        topology: the stations.
        contact: whether the broker answers.
        monotonic: the clock.
    """

    def __init__(
        self,
        topology: Topology,
        contact: BrokerContact,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stations = (*topology.stations, topology.delayed)
        self._monotonic = monotonic
        self._wanted = -math.inf
        self._readings: dict[Station, Reading] = {}
        self._empty_at: dict[Station, float] = {}
        self.contact = contact
        self.turned_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def want(self) -> None:
        """Have depths counted for the next minutes. Safe to call from any thread."""
        self._wanted = self._monotonic()

    def reading(self, station: Station, now: float) -> Reading | None:
        """Return what was counted last; None if that failed, or is long ago `now`."""
        reading = self._readings.get(station)
        fresh = reading is not None and now - reading.at <= _FRESH
        return reading if fresh else None

    def empty_at(self, station: Station) -> float | None:
        """Return when `station` was last seen empty, in monotonic seconds."""
        return self._empty_at.get(station)

    async def run(self, broker: Broker, stopping: asyncio.Event) -> None:
        """Watch until stopping."""
        counting = asyncio.create_task(self._count_often(broker), name="count messages")
        stopped = asyncio.create_task(stopping.wait())
        self._beat()
        try:
            await asyncio.wait({counting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if counting.done():  # by a defect, or cancelled by something else: it is started again
                await counting
        finally:
            self._end_beat()
            stopped.cancel()
            counting.cancel()
            # It may wait for a broker that does not answer, which keeps nobody from leaving.
            await asyncio.wait({counting}, timeout=_LEAVE)

    def _beat(self) -> None:
        self.turned_at = self._monotonic()
        self._timer = asyncio.get_running_loop().call_later(_BEAT, self._beat)

    def _end_beat(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.turned_at = None  # or it would seem stuck while the last handlers end

    async def _count_often(self, broker: Broker) -> None:
        while True:
            wait = _BEAT
            if self._monotonic() - self._wanted <= _WANTED:
                await self.count(broker)
                wait = _INTERVAL * random.uniform(1.0, 1.2)  # noqa: S311 - jitter, not a secret
            await asyncio.sleep(wait)

    async def count(self, broker: Broker) -> None:
        """Count what waits in each station."""
        for station in self._stations:
            try:
                ready = await broker.depth(station)
            except BrokerUnavailableError as error:
                self.contact.failed(error)
                self._readings.clear()
                return
            except BrokerError:
                self._readings.pop(station, None)
                continue
            self.contact.answered()
            self._note(station, ready)

    def _note(self, station: Station, ready: int) -> None:
        now = self._monotonic()
        self._readings[station] = Reading(ready, now)
        if not ready:
            self._empty_at[station] = now
