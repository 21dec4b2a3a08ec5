"""Readings as prometheus_client's families, made when they are scraped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    Sample,
)
from prometheus_client.utils import floatToGoString

from fusewire.telemetry._metrics import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fusewire.breaker import Histogram
    from fusewire.telemetry._metrics import Labels
    from fusewire.telemetry._metrics import Metric as Definition
    from fusewire.telemetry._source import Source


class SourceCollector:
    """Gives prometheus_client what a source reads."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def describe(self) -> Iterable[Metric]:
        """Return all families without values, so that a second exporter is refused."""
        return [
            _histogram_family(metric, {})
            if metric.kind is Kind.HISTOGRAM
            else _number_family(metric, {})
            for metric in self._source.metrics
        ]

    def collect(self) -> Iterator[Metric]:
        """Read, and return the families that have values."""
        readings = self._source.read()
        for metric, numbers in readings.numbers.items():
            yield _number_family(metric, numbers)
        for metric, histograms in readings.histograms.items():
            yield _histogram_family(metric, histograms)


def bounds_of(histogram: Histogram) -> tuple[str, ...]:
    """Return the upper bounds of a histogram's buckets, as labels."""
    return (*map(floatToGoString, histogram.bounds), "+Inf")


def _number_family(metric: Definition, values: dict[Labels, float]) -> Metric:
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.text)
    # add_metric() takes twice as long, and there may be ten thousand.
    name, names = metric.name, metric.labels
    family.samples = [
        Sample(name, dict(zip(names, labels, strict=True)), value)
        for labels, value in values.items()
    ]
    return family


def _histogram_family(metric: Definition, values: dict[Labels, Histogram]) -> Metric:
    family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
    for labels, value in values.items():
        buckets = list(zip(bounds_of(value), value.cumulative, strict=True))
        family.add_metric(labels, buckets, value.seconds)
    return family
