"""What the log says of a lane, from the first message that waits in it until it is empty.

A warning when messages begin to wait, a line a minute while they do, one when they are replayed,
and one when the lane is empty. A lane that fills and empties again and again has a line a minute.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusewire._log_fields import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fusewire.brokers import Station, Topology
    from fusewire.parking._status_watch import Reading

logger = logging.getLogger("fusewire.parking")

_SAY_AGAIN = 60.0
"""Seconds between two lines that say how many messages wait, and after the lane was empty."""

_MOST_NAMED = 3
"""Circuits that a line names."""


@dataclass(slots=True)
class _Counts:
    """What this process has seen of a lane since it was empty.

    Attributes:
        since: when that began, in monotonic seconds.
        parked: messages that it moved into the lane.
        replayed: messages of the lane that it handled.
        dead: messages that it moved from there to the dead queue.
        left: messages that it moved from there elsewhere, most of them to a delay.
        circuits: what they wait for; not more than the log names.
        announced: whether the log has said that messages wait.
        said_at: when it said so last.
        replays_began: when the first message was replayed.
    """

    since: float
    parked: int = 0
    replayed: int = 0
    dead: int = 0
    left: int = 0
    circuits: dict[str, None] = field(default_factory=dict)
    announced: bool = False
    said_at: float = 0.0
    replays_began: float = math.inf


class LaneLog:
    """The log of one lane.

    Args:
        station: the lane.
        monotonic: the clock.
        now: the wall clock, in seconds since 1970.

    Attributes:
        station: the lane.
        head: when the message that was taken from its head last was first parked, in milliseconds
            since 1970, and when it was taken, in monotonic seconds; None if none was.
    """

    def __init__(
        self, station: Station, monotonic: Callable[[], float], now: Callable[[], float]
    ) -> None:
        self.station = station
        self.head: tuple[int, float] | None = None
        self._monotonic = monotonic
        self._now = now
        self._counts: _Counts | None = None
        self._changed = -math.inf  # when the last message came or went
        self._quiet_until = -math.inf
        self._counted_first = False

    @property
    def wants_count(self) -> bool:
        """Whether it has to be known how many messages wait."""
        return self._counts is not None or not self._counted_first

    @property
    def circuits(self) -> tuple[str, ...]:
        """What the messages wait for that this process has moved there since it was empty."""
        return () if self._counts is None else tuple(self._counts.circuits)

    def taken(self, first_parked_at_ms: int) -> None:
        """Note that a message was taken from the head."""
        self.head = first_parked_at_ms, self._monotonic()

    def parked(self, circuit: str, reason: str) -> None:
        """Note that a message came to wait for `circuit`."""
        counts = self._came(circuit)
        if counts.parked == 1 and not self._is_quiet():
            self._announce(counts, reason)

    def submitted(self, circuit: str) -> None:
        """Note that a call came to wait for a forwarder, which is no sign of trouble."""
        counts = self._came(circuit)
        if not counts.announced:
            counts.announced, counts.said_at = True, self._monotonic()

    def replayed(self, circuit: str) -> None:
        """Note that a message that had waited for `circuit` was handled."""
        counts = self._change()
        counts.replayed += 1
        if counts.replayed > 1:
            return
        counts.replays_began = self._changed
        if not self._is_quiet():
            logger.info(
                "the replay of %s begins: %r admits calls again; this process has parked %d",
                self.station,
                circuit,
                counts.parked,
                extra=self._fields("lane.replaying", circuit=circuit, parked=counts.parked),
            )

    def died(self) -> None:
        """Note that a message that had waited is dead."""
        self._change().dead += 1

    def left(self) -> None:
        """Note that a message that had waited waits elsewhere."""
        self._change().left += 1

    def look(self, reading: Reading | None, in_flight: int) -> None:
        """Log what is due.

        Args:
            reading: how many messages wait, as they were counted last; None if that is not known.
            in_flight: messages of the lane that this process has in flight.
        """
        now, counts = self._monotonic(), self._counts
        first = reading is not None and not self._counted_first
        self._counted_first = self._counted_first or first
        if counts is None:
            if first and reading is not None and reading.ready:
                self._find(reading.ready)
            return
        if self._is_quiet():
            return
        if reading is not None and not (reading.ready or in_flight) and reading.at > self._changed:
            self._say_empty(counts)
            self._counts, self._quiet_until = None, now + _SAY_AGAIN
        elif not counts.announced:
            self._announce(counts, "")
        elif now - counts.said_at >= _SAY_AGAIN:
            self._say_waiting(counts, None if reading is None else reading.ready + in_flight)

    def end(self, reading: Reading | None) -> None:
        """Log what is left when the consumer stops, which has nothing in flight any more."""
        if self._counts is not None and not self._is_quiet():
            ready = None if reading is None else reading.ready
            self._say_waiting(self._counts, ready, "when the consumer stops, ")
            self._counts = None

    def _is_quiet(self) -> bool:
        return self._monotonic() < self._quiet_until

    def _came(self, circuit: str) -> _Counts:
        counts = self._change()
        counts.parked += 1
        if circuit and circuit not in counts.circuits and len(counts.circuits) < _MOST_NAMED:
            counts.circuits[circuit] = None
        return counts

    def _change(self) -> _Counts:
        self._changed = self._monotonic()
        if self._counts is None:
            self._counts = _Counts(self._changed)
        return self._counts

    def _announce(self, counts: _Counts, reason: str) -> None:
        counts.announced, counts.said_at = True, self._monotonic()
        logger.warning(
            "messages of %r wait in %s for %s%s",
            self.station.queue,
            self.station,
            _named(counts.circuits),
            f" ({reason})" if reason else "",
            extra=self._fields(
                "lane.parking",
                circuit=next(iter(counts.circuits), None),
                reason=reason or None,
                parked=counts.parked,
            ),
        )

    def _find(self, ready: int) -> None:
        counts = self._counts = _Counts(self._monotonic(), announced=True)
        counts.said_at = counts.since
        logger.info(
            "%d messages wait in %s since before this process began",
            ready,
            self.station,
            extra=self._fields("lane.waiting", count=ready),
        )

    def _say_waiting(self, counts: _Counts, waiting: int | None, when: str = "") -> None:
        counts.said_at = self._monotonic()
        oldest = self._oldest(counts)
        logger.info(
            "%s%s messages wait in %s for %s%s; in %.0f s this process parked %d, replayed %d and "
            "dead-lettered %d",
            when,
            "an unknown number of" if waiting is None else waiting,
            self.station,
            _named(counts.circuits),
            "" if oldest is None else f", the oldest for {oldest:.0f} s",
            counts.said_at - counts.since,
            counts.parked,
            counts.replayed,
            counts.dead,
            extra=self._fields(
                "lane.waiting",
                circuit=next(iter(counts.circuits), None),
                count=waiting,
                oldest_seconds=None if oldest is None else round(oldest, 3),
                parked=counts.parked,
                replayed=counts.replayed,
                dead=counts.dead,
            ),
        )

    def _say_empty(self, counts: _Counts) -> None:
        seconds = max(self._changed - counts.replays_began, 0.0)
        rate = counts.replayed / seconds if counts.replayed > 1 and seconds > 0 else None
        replayed = f"{counts.replayed} messages were replayed in {seconds:.1f} s"
        if not counts.replayed:
            replayed = "this process has replayed none"
        logger.info(
            "%s is empty: %s%s; this process parked %d, dead-lettered %d and moved %d elsewhere",
            self.station,
            replayed,
            "" if rate is None else f" ({_digits(rate)} a second)",
            counts.parked,
            counts.dead,
            counts.left,
            extra=self._fields(
                "lane.drained",
                circuit=next(iter(counts.circuits), None),
                count=counts.replayed,
                seconds=round(seconds, 3),
                rate=None if rate is None else round(rate, 3),
                lasted_seconds=round(self._changed - counts.since, 3),
                parked=counts.parked,
                replayed=counts.replayed,
                dead=counts.dead,
                left=counts.left,
            ),
        )

    def _oldest(self, counts: _Counts) -> float | None:
        """Return how long the oldest message has waited, as far as that is known, in seconds."""
        if self.head is not None and self.head[1] >= counts.since:
            return max(self._now() - self.head[0] / 1000, 0.0)
        return self._monotonic() - counts.since if counts.parked else None

    def _fields(self, event: str, **values: float | str | None) -> dict[str, float | str]:
        return fields(event, queue=self.station.queue, lane=self.station.lane, **values)


def _digits(number: float) -> str:
    # Three digits, and never an exponent.
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"  # noqa: PLR2004 - see above


def _named(circuits: Iterable[str]) -> str:
    names = ", ".join(map(repr, circuits))
    return f"circuit {names}" if names else "a circuit that is not known yet"


class LaneLogs:
    """The logs of the lanes of a queue, by name.

    Args:
        topology: the lanes.
        monotonic: the clock.
        now: the wall clock, in seconds since 1970.
    """

    def __init__(
        self,
        topology: Topology,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._lanes = {
            lane: LaneLog(topology.parked(lane), monotonic, now) for lane in topology.lanes
        }

    def __getitem__(self, lane: str) -> LaneLog:
        return self._lanes[lane]

    def __iter__(self) -> Iterator[tuple[str, LaneLog]]:
        return iter(self._lanes.items())

    def to_count(self) -> list[Station]:
        """Return the lanes of which it has to be known how many messages wait."""
        return [log.station for log in self._lanes.values() if log.wants_count]
