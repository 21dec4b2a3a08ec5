"""What counters have grown by, since they were read last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker import Histogram

if TYPE_CHECKING:
    from fusewire.telemetry._metrics import Labels, Metric


class Growth:
    """Remembers values of counters, and returns by how much they have grown.

    A counter that has become smaller has begun again at 0. So has one that is new.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[Metric, Labels], float] = {}
        self._histograms: dict[tuple[Metric, Labels], Histogram] = {}

    def of(self, metric: Metric, labels: Labels, value: float) -> float:
        """Return by how much a counter has grown since the last time."""
        key = (metric, labels)
        last = self._numbers.get(key, 0.0)
        self._numbers[key] = value
        return value - last if value >= last else value

    def of_histogram(self, metric: Metric, labels: Labels, histogram: Histogram) -> Histogram:
        """Return what a histogram has counted since the last time."""
        key = (metric, labels)
        last = self._histograms.get(key)
        self._histograms[key] = histogram
        if last is None:
            return histogram
        counts = tuple(b - a for a, b in zip(last.counts, histogram.counts, strict=True))
        if min(counts) < 0:
            return histogram
        return Histogram(histogram.bounds, counts, max(histogram.seconds - last.seconds, 0.0))
