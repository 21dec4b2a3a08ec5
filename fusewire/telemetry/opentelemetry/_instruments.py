"""Metrics as OpenTelemetry's instruments, which are read when they are collected.

Counters and gauges are observable. There is no observable histogram: what a histogram counts is
recorded, at a collection at the latest.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opentelemetry.metrics import Meter, Observation

from fusewire._locks import make_lock
from fusewire.telemetry._metrics import Combine, Kind, Readings
from fusewire.telemetry.opentelemetry._recording import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry.metrics import CallbackOptions
    from opentelemetry.metrics import Histogram as Instrument

    from fusewire.telemetry._metrics import Labels, Metric
    from fusewire.telemetry._source import Source

_NAMESPACES = ("circuit_breaker", "fusewire")
_UNITS = {
    "calls": "{call}",
    "messages": "{message}",
    "reloads": "{reload}",
    "requests": "{request}",
    "transitions": "{transition}",
}

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
    """What the instruments of a meter show of a source, until it is closed.

    Args:
        source: what is read.
        meter: makes the instruments.
        monotonic: the clock.
    """

    def __init__(
        self, source: Source, meter: Meter, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._monotonic = monotonic
        self._lock = make_lock()
        self._readings: Readings | None = None
        self._read_at = 0.0
        self._served: set[Metric] = set()
        self._made = _made_by(meter)
        self._recorder = Recorder(source.read_circuits, self._made.histograms, monotonic)
        self._recorder.skip(source.read())  # what was counted before is not recorded
        self._made.show(self, meter, source.metrics)
        if source.reads_durations:
            self._recorder.start()

    def close(self) -> None:
        """Show nothing any more."""
        self._recorder.collect(self._source.read)
        self._recorder.close()
        self._made.hide(self)

    def read(self, metric: Metric) -> Mapping[Labels, float]:
        """Return the values of a counter or gauge."""
        return self._reading(metric).numbers.get(metric, {})

    def _reading(self, metric: Metric) -> Readings:
        """Return what was read last, or read now if `metric` was taken from that, or it is old."""
        with self._lock:
            now = self._monotonic()
            if metric in self._served or now - self._read_at > _FRESH or self._readings is None:
                self._readings, self._read_at = self._recorder.collect(self._source.read), now
                self._served.clear()
            self._served.add(metric)
            return self._readings


class _Made:
    """The instruments that a meter has made, and what they show.

    A meter makes an instrument of a name once, and keeps it. It asks the callback that came with
    it, and drops the one of a second instrument. So what is shown later, by another registry or
    after the first was closed, is shown by the same instruments.

    Attributes:
        histograms: those that were made.
    """

    def __init__(self) -> None:
        self._lock = make_lock()
        self._metrics: set[Metric] = set()
        self._shown: tuple[Instruments, ...] = ()
        self.histograms: dict[Metric, Instrument] = {}

    def show(self, instruments: Instruments, meter: Meter, metrics: Iterable[Metric]) -> None:
        """Show `instruments` too, and make what is absent for `metrics`."""
        with self._lock:
            self._shown += (instruments,)
            missing = [metric for metric in metrics if metric not in self._metrics]
            self._metrics.update(missing)
        for metric in missing:
            self._make(meter, metric)

    def hide(self, instruments: Instruments) -> None:
        """Show `instruments` no more."""
        with self._lock:
            self._shown = tuple(each for each in self._shown if each is not instruments)

    def _make(self, meter: Meter, metric: Metric) -> None:
        name, unit = name_and_unit(metric)
        if metric.kind is Kind.HISTOGRAM:
            self.histograms[metric] = meter.create_histogram(
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
        together = Readings()
        for each in self._shown:
            for labels, value in each.read(metric).items():
                together.add(metric, labels, value)
        for labels, value in together.numbers.get(metric, {}).items():
            yield Observation(value, dict(zip(metric.labels, labels, strict=True)))


_meters: WeakKeyDictionary[Meter, _Made] = WeakKeyDictionary()
_meters_lock = make_lock()


def _made_by(meter: Meter) -> _Made:
    with _meters_lock:
        return _meters.setdefault(meter, _Made())
