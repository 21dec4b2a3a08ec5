"""Metrics as OpenTelemetry's observable instruments, which are read when they are collected."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation

from fusewire._locks import make_lock
from fusewire.parking import MessageOutcome
from fusewire.telemetry._messages import PARKED_BOUNDS, PARKED_SECONDS
from fusewire.telemetry._metrics import Combine, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.metrics import CallbackOptions, Meter

    from fusewire.parking import MessageEvent
    from fusewire.telemetry._metrics import Metric, Readings
    from fusewire.telemetry._source import Source

_NAMESPACES = ("circuit_breaker", "fusewire")
_UNITS = {"calls": "{call}", "messages": "{message}", "transitions": "{transition}"}

_FRESH = 1.0
"""Seconds for which one reading serves all instruments of a collection."""


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
        for metric in source.metrics:
            if metric.kind is not Kind.HISTOGRAM:
                self._make(meter, metric)
        name, unit = name_and_unit(PARKED_SECONDS)
        self._parked = meter.create_histogram(
            name,
            unit,
            PARKED_SECONDS.text,
            explicit_bucket_boundaries_advisory=PARKED_BOUNDS,
        )

    def count(self, queue: str, event: MessageEvent) -> None:
        """Record how long a message of `queue` was parked, if it was."""
        if event.outcome is MessageOutcome.REPLAYED and event.first_parked_at is not None:
            seconds = max(event.ended_at - event.first_parked_at, 0.0)
            self._parked.record(seconds, {"queue": queue, "lane": event.lane})

    def close(self) -> None:
        """Give nothing any more."""
        with self._lock:
            self._source = self._readings = None

    def _make(self, meter: Meter, metric: Metric) -> None:
        name, unit = name_and_unit(metric)
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
                self._served.clear()
            self._served.add(metric)
            return self._readings
