"""Metrics as OpenTelemetry's instruments, which are read when they are collected.

Counters and gauges are observable. There is no observable histogram: what a histogram has counted
since the last collection is recorded at the next one.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation

from fusewire._locks import make_lock
from fusewire.telemetry._growth import Growth
from fusewire.telemetry._metrics import Combine, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opentelemetry.metrics import CallbackOptions, Meter
    from opentelemetry.metrics import Histogram as Instrument

    from fusewire.breaker import Histogram
    from fusewire.telemetry._metrics import Metric, Readings
    from fusewire.telemetry._source import Source

logger = logging.getLogger("fusewire.telemetry")

_NAMESPACES = ("circuit_breaker", "fusewire")
_UNITS = {"calls": "{call}", "messages": "{message}", "transitions": "{transition}"}

_INSIDE = 1e-6
"""The share of a bucket's width at which a duration is surely above its lower bound."""

_FRESH = 1.0
"""Seconds for which one reading serves all instruments of a collection."""


_MOST_AT_ONCE = 100_000
"""Durations that one series records at a collection, which takes two seconds. So many were hardly
made since the last one: they come from a snapshot."""


def name_and_unit(metric: Metric) -> tuple[str, str]:
    """Return what OpenTelemetry calls a metric.

    Its exporter for Prometheus makes the metric's name of it again: it puts underscores for dots,
    the unit behind the name, and ``_total`` behind that of a counter.
    """
    name = metric.name.removesuffix("_total")
    unit = _UNITS.get(name.rpartition("_")[2], "")
    if name.endswith("_seconds"):
        name, unit = name.removesuffix("_seconds"), "s"
    for namespace in _NAMESPACES:
        if name.startswith(f"{namespace}_"):
            name = f"{namespace}.{name.removeprefix(f'{namespace}_')}"
    return name, unit


class Instruments:
    """The instruments of a source.

    OpenTelemetry asks each instrument by itself, and cannot take one away: a closed object gives
    nothing any more.

    Args:
        source: what is read.
        meter: makes the instruments.
        monotonic: the clock.
    """

    def __init__(
        self, source: Source, meter: Meter, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._source: Source | None = source
        self._monotonic = monotonic
        self._lock = make_lock()
        self._readings: Readings | None = None
        self._read_at = 0.0
        self._served: set[Metric] = set()
        self._growth = Growth()
        self._histograms: dict[Metric, Instrument] = {}
        for metric in source.metrics:
            self._make(meter, metric)
        self._record(source.read(), {})  # what was counted before is not recorded

    def close(self) -> None:
        """Give nothing any more."""
        with self._lock:
            self._source = self._readings = None

    def _make(self, meter: Meter, metric: Metric) -> None:
        name, unit = name_and_unit(metric)
        if metric.kind is Kind.HISTOGRAM:
            self._histograms[metric] = meter.create_histogram(
                name, unit, metric.text, explicit_bucket_boundaries_advisory=metric.bounds
            )
            return
        made_of = name, [partial(self._observe, metric)], unit, metric.text
        if metric.kind is Kind.COUNTER:
            meter.create_observable_counter(*made_of)
        elif metric.combine is Combine.SUM:
            meter.create_observable_up_down_counter(*made_of)
        else:
            meter.create_observable_gauge(*made_of)

    def _observe(self, metric: Metric, _options: CallbackOptions) -> Iterator[Observation]:
        readings = self._reading(metric)
        if readings is None:
            return
        for labels, value in readings.numbers.get(metric, {}).items():
            yield Observation(value, dict(zip(metric.labels, labels, strict=True)))

    def _reading(self, metric: Metric) -> Readings | None:
        """Return what was read last, or read now if `metric` was taken from that, or it is old."""
        with self._lock:
            if self._source is None:
                return None
            now = self._monotonic()
            if metric in self._served or now - self._read_at > _FRESH or self._readings is None:
                self._readings, self._read_at = self._source.read(), now
                self._record(self._readings, self._histograms)
                self._served.clear()
            self._served.add(metric)
            return self._readings

    def _record(self, readings: Readings, to: Mapping[Metric, Instrument]) -> None:
        """Record what histograms have counted since the last time, those that `to` has."""
        for metric, histograms in readings.histograms.items():
            for labels, histogram in histograms.items():
                more = self._growth.of_histogram(metric, labels, histogram)
                if metric in to:
                    attributes = dict(zip(metric.labels, labels, strict=True))
                    _record_all(to[metric], metric.name, attributes, more)


def _record_all(
    to: Instrument, name: str, attributes: dict[str, str], histogram: Histogram
) -> None:
    if histogram.calls > _MOST_AT_ONCE:
        logger.warning(
            "%d values of %s %s since the last collection are not recorded, because that would "
            "take seconds: restore snapshots before instrument(), or collect more often",
            histogram.calls,
            name,
            attributes,
        )
        return
    for seconds, calls in spread(histogram):
        for _ in range(calls):
            to.record(seconds, attributes)


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
