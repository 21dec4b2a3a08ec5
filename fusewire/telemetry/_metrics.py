"""The metrics that exporters show: their names, labels and meaning, and the values of one reading.

Names, labels and values of the first three are those of the article that Fusewire began with, so
that its queries work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from fusewire.breaker import Histogram

Labels: TypeAlias = tuple[str, ...]


class Kind(Enum):
    """What a metric's values are."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Combine(Enum):
    """How the values of several circuits, consumers, processes or replicas make one."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"

    @property
    def nothing(self) -> float:
        """The value that changes no other when it is combined with it."""
        return {Combine.SUM: 0.0, Combine.MAX: -math.inf, Combine.MIN: math.inf}[self]

    def of(self, one: float, other: float) -> float:
        """Return two values as one."""
        if self is Combine.SUM:
            return one + other
        return max(one, other) if self is Combine.MAX else min(one, other)


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric.

    Attributes:
        name: its name in Prometheus.
        labels: the names of its labels.
        text: what it is.
        kind: what its values are.
        combine: how several values make one. Queries over replicas combine them in the same way.
        bounds: of a histogram, the upper bounds of its buckets; the last bucket has none.
    """

    name: str
    labels: Labels
    text: str
    kind: Kind = Kind.GAUGE
    combine: Combine = Combine.SUM
    bounds: tuple[float, ...] = ()


class Readings:
    """The values of metrics at one moment. Two values of one metric and labels are combined.

    Attributes:
        numbers: by metric and labels, the values of counters and gauges.
        histograms: the same of histograms.
    """

    def __init__(self) -> None:
        self.numbers: dict[Metric, dict[Labels, float]] = {}
        self.histograms: dict[Metric, dict[Labels, Histogram]] = {}

    def add(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add a value of a counter or gauge."""
        values = self.numbers.setdefault(metric, {})
        if labels in values:
            value = metric.combine.of(values[labels], value)
        values[labels] = value

    def add_histogram(self, metric: Metric, labels: Labels, histogram: Histogram) -> None:
        """Add a histogram."""
        values = self.histograms.setdefault(metric, {})
        known = values.get(labels)
        values[labels] = histogram if known is None else together(known, histogram)

    def include(self, other: Readings) -> None:
        """Add all values of another reading."""
        for metric, values in other.numbers.items():
            for labels, value in values.items():
                self.add(metric, labels, value)
        for metric, histograms in other.histograms.items():
            for labels, histogram in histograms.items():
                self.add_histogram(metric, labels, histogram)


def together(one: Histogram, other: Histogram) -> Histogram:
    """Return two histograms with the same buckets as one."""
    counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
    return Histogram(one.bounds, counts, one.seconds + other.seconds)


def without(whole: Histogram, part: Histogram) -> Histogram:
    """Return what a histogram has besides `part`."""
    # Read one after the other, `part` may be newer.
    counts = tuple(max(a - b, 0) for a, b in zip(whole.counts, part.counts, strict=True))
    return Histogram(whole.bounds, counts, max(whole.seconds - part.seconds, 0.0))
