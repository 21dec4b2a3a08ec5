"""What a status needs that has to be asked for: depths, and whether broker and event loop answer.

It is asked for in the background, and only while somebody reads the status. So a scrape waits for
nothing, and a consumer that nobody looks at asks its broker for nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from typing import TYPE_CHECKING, NamedTuple

from fusewire._log_fields import fields
from fusewire.errors import BrokerError, BrokerUnavailableError, UnconfirmedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from fusewire.brokers import Broker, Station, Topology

logger = logging.getLogger("fusewire.parking")

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


NO_ANSWER = (BrokerUnavailableError, UnconfirmedError)
"""Errors by which a broker did not answer."""


class BrokerContact:
    """Whether the broker answered when it was last asked for something.

    The log says once that it does not, unless the broker itself does, and once that it does again.

    Attributes:
        answers: whether it did.
        since: since when that is so, in monotonic seconds.
        failures: how often it did not. Read it before asking, and pass it to :meth:`answered`.

    Args:
        queue: the source queue.
        monotonic: the clock.
    """

    def __init__(self, queue: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._queue = queue
        self._monotonic = monotonic
        self._said_lost = False
        self.answers = False
        self.since = monotonic()
        self.failures = 0

    def answered(self, failures: int) -> None:
        """Note that it answered; `failures` is their number when it was asked.

        An answer to what was asked before it failed says nothing of the time since.
        """
        if failures != self.failures:
            return
        if self._said_lost:
            self._said_lost = False
            seconds = self._monotonic() - self.since
            logger.info(
                "the broker of %r answers again after %.1f s",
                self._queue,
                seconds,
                extra=fields("broker.back", queue=self._queue, seconds=round(seconds, 3)),
            )
        self._note(answers=True)

    def failed(self, error: BrokerError) -> None:
        """Note an error. A broker that has no such queue has answered."""
        if not isinstance(error, NO_ANSWER):
            self.answered(self.failures)
            return
        self.failures += 1
        if self.answers and not error.logged:
            self._said_lost = True
            logger.warning(
                "the broker of %r does not answer (%s); it is asked until it does",
                self._queue,
                error,
                extra=fields("broker.lost", queue=self._queue),
            )
        self._note(answers=False)

    def left(self) -> None:
        """Note that it was left."""
        self._said_lost = False
        self._note(answers=False)

    def _note(self, *, answers: bool) -> None:
        if answers is not self.answers:
            self.answers, self.since = answers, self._monotonic()


class Reading(NamedTuple):
    """How many messages waited in a station.

    Attributes:
        ready: how many were ready.
        at: when the broker was asked, in monotonic seconds. Of what changed later, nobody knows
            whether it is counted.
    """

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
        self._in_flight: Callable[[Station], int] = lambda _: 0
        self.contact = contact
        self.turned_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def want(self) -> None:
        """Have all depths counted for the next minutes. Safe to call from any thread."""
        self._wanted = self._monotonic()

    def reading(self, station: Station, now: float) -> Reading | None:
        """Return what was counted last; None if that failed, or is long ago `now`."""
        reading = self._readings.get(station)
        fresh = reading is not None and now - reading.at <= _FRESH
        return reading if fresh else None

    def empty_at(self, station: Station) -> float | None:
        """Return when `station` was last seen empty, in monotonic seconds."""
        return self._empty_at.get(station)

    async def run(
        self,
        broker: Broker,
        stopping: asyncio.Event,
        *,
        to_count: Callable[[], Collection[Station]],
        look: Callable[[], None],
        in_flight: Callable[[Station], int] = lambda _: 0,
    ) -> None:
        """Watch until stopping.

        Args:
            broker: where the stations are.
            stopping: set when the watch ends.
            to_count: returns the stations to count whether or not somebody reads the status.
            look: called each second.
            in_flight: returns how many messages of a station are in flight here: a station whose
                last messages are is not empty, though the broker counts none that are ready.
        """
        self._in_flight = in_flight
        counting = asyncio.create_task(self._count_often(broker, to_count, look), name="count")
        stopped = asyncio.create_task(stopping.wait())
        self._beat()
        try:
            await asyncio.wait({counting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            # By a defect, or cancelled by something else: it is started again.
            for ended in (counting, stopped):
                if ended.done():
                    await ended
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

    async def _count_often(
        self,
        broker: Broker,
        to_count: Callable[[], Collection[Station]],
        look: Callable[[], None],
    ) -> None:
        due = self._monotonic()
        while True:
            now = self._monotonic()
            wanted = now - self._wanted <= _WANTED
            if now >= due and (stations := self._stations if wanted else to_count()):
                await self.count(broker, stations)
                spread = random.uniform(1.0, 1.2)  # noqa: S311 - jitter, not a secret
                due = now + _INTERVAL * spread
            look()
            await asyncio.sleep(_BEAT)

    async def count(self, broker: Broker, stations: Iterable[Station] = ()) -> None:
        """Count what waits in each of `stations`, or in all."""
        for station in stations or self._stations:
            failures, asked_at = self.contact.failures, self._monotonic()
            try:
                ready = await broker.depth(station)
            except BrokerUnavailableError as error:
                self.contact.failed(error)
                self._readings.clear()
                return
            except BrokerError:
                self._readings.pop(station, None)
                continue
            self.contact.answered(failures)
            self._note(station, Reading(ready, asked_at))

    def _note(self, station: Station, reading: Reading) -> None:
        self._readings[station] = reading
        if not (reading.ready or self._in_flight(station)):
            self._empty_at[station] = reading.at
