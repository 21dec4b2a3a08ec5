"""Histograms that Fusewire has counted, recorded value by value, because there is no other way.

OpenTelemetry's API takes one value at a time, which costs 6 to 20 µs. So values are recorded
in a thread as they come, and a collection records what has come since. It never takes long: a
reader that waits too long for a collection drops it whole.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from fusewire._locks import make_lock, renew_in_child
from fusewire.telemetry._growth import Growth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opentelemetry.metrics import Histogram as Instrument

    from fusewire.breaker import Histogram
    from fusewire.telemetry._metrics import Metric, Readings

logger = logging.getLogger("fusewire.telemetry")

_INSIDE = 1e-6
"""The share of a bucket's width at which a duration is surely above its lower bound."""

_INTERVAL = 5.0
"""Seconds between two looks of the thread. What comes in that time is left for a collection."""

_TURN = 0.004
"""Seconds that the thread records before it lets others go on for as long."""

_LONGEST = 2.0
"""Seconds that one collection records, at most: 100,000 values or more. The thread records the
others."""

_SLICE = 100
"""Values that are recorded between two looks at the clock."""


class _Values(NamedTuple):
    """Values that are alike, and not recorded yet."""

    to: Instrument
    attributes: dict[str, str]
    seconds: float
    times: int


class Recorder:
    """Records what histograms have counted, each value once.

    Args:
        read: returns the histograms now.
        to: the instruments, by metric; those of other metrics are not recorded.
        monotonic: the clock.
    """

    def __init__(
        self,
        read: Callable[[], Readings],
        to: Mapping[Metric, Instrument],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._to = to
        self._monotonic = monotonic
        # Held from a reading until it is taken: an older one must not be taken after a newer one.
        self._lock = make_lock()
        self._growth = Growth()
        self._left: deque[_Values] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def skip(self, readings: Readings) -> None:
        """Take what was counted so far as recorded."""
        with self._lock:
            for metric, labels, histogram in _histograms(readings):
                self._growth.of_histogram(metric, labels, histogram)

    def collect(self, read: Callable[[], Readings]) -> Readings:
        """Return what `read` returns, and record what its histograms have counted."""
        with self._lock:
            readings = read()
            self._take(readings)
            self._record(_LONGEST)
            if self._left:
                self.start()
            return readings

    def start(self) -> None:
        """Record in a thread of its own too, until :meth:`close`. Idempotent."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(
                target=self._work_often, name="fusewire durations", daemon=True
            )
            self._thread.start()
            renew_in_child(self, Recorder._renew)

    def close(self) -> None:
        """End the thread. What a collection has left is not recorded any more."""
        self._stop.set()
        with self._lock:
            left = sum(each.times for each in self._left)
            self._left.clear()
        if left:
            logger.warning("%d durations are not recorded: there were too many at the end", left)

    def work(self) -> None:
        """Read and record until nothing is left, with pauses for others."""
        with self._lock:
            self._take(self._read())
        while not self._stop.is_set():
            began = self._monotonic()
            with self._lock:
                self._record(_TURN)
                if not self._left:
                    return
            self._stop.wait(max(self._monotonic() - began, 0.0))

    def _renew(self) -> None:
        """Record what a forked child counts itself. Its parent records what was left."""
        self._left.clear()
        self._thread = None
        self.start()

    def _work_often(self) -> None:
        while not self._stop.wait(_INTERVAL):
            try:
                self.work()
            except Exception:
                logger.exception("durations could not be recorded; they are tried again")

    def _take(self, readings: Readings) -> None:
        """Note what histograms have counted since the last time."""
        for metric, labels, histogram in _histograms(readings):
            more = self._growth.of_histogram(metric, labels, histogram)
            if metric not in self._to:
                continue
            attributes = dict(zip(metric.labels, labels, strict=True))
            for seconds, times in spread(more):
                self._left.append(_Values(self._to[metric], attributes, seconds, times))

    def _record(self, seconds: float) -> None:
        """Record what is left, for so long at most."""
        end = self._monotonic() + seconds
        while self._left and self._monotonic() < end:
            values = self._left.popleft()
            times = min(values.times, _SLICE)
            for _ in range(times):
                values.to.record(values.seconds, values.attributes)
            if times < values.times:
                self._left.appendleft(values._replace(times=values.times - times))


def _histograms(readings: Readings) -> Iterator[tuple[Metric, tuple[str, ...], Histogram]]:
    for metric, histograms in readings.histograms.items():
        for labels, histogram in histograms.items():
            yield metric, labels, histogram


def spread(histogram: Histogram) -> Iterator[tuple[float, int]]:
    """Return durations that a histogram may have counted, and how many there are of each.

    There is one for each bucket, at the same share of its width in all of them, so that they are as
    long together as those that were counted. Those of the last bucket take what is left.
    """
    edges = (0.0, *histogram.bounds, 2 * histogram.bounds[-1])
    buckets = [each for each in zip(edges, edges[1:], histogram.counts, strict=False) if each[2]]
    least = sum(low * calls for low, _, calls in buckets)
    width = sum((high - low) * calls for low, high, calls in buckets)
    share = min(max((histogram.seconds - least) / width, _INSIDE), 1.0) if width else 0.0
    left = histogram.seconds
    for low, high, calls in buckets:
        seconds = min(low + share * (high - low), high)
        if high == edges[-1]:
            seconds = max(left / calls, seconds)
        left -= seconds * calls
        yield seconds, calls
