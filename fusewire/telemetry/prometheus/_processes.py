"""Several processes behind one scrape: prometheus_client's multiprocess mode.

There, prometheus_client reads what all processes have written to files, and asks no collector. So a
thread writes to these files what has changed, once a second.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from prometheus_client import values

from fusewire._locks import make_lock
from fusewire.errors import SettingsError
from fusewire.telemetry._growth import Growth
from fusewire.telemetry._metrics import Kind
from fusewire.telemetry.prometheus._collector import bounds_of

if TYPE_CHECKING:
    from fusewire.breaker import Histogram
    from fusewire.telemetry._metrics import Labels, Metric
    from fusewire.telemetry._source import Source

logger = logging.getLogger("fusewire.telemetry")

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_INTERVAL = 1.0
"""Seconds between writes. A process that is killed loses what it counted since the last one."""


def shares_scrapes() -> bool:
    """Return whether prometheus_client is in multiprocess mode.

    Raises:
        SettingsError: the variable does not name a folder, or came too late.
    """
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return False
    if not Path(folder).is_dir():
        raise SettingsError(
            f"{VARIABLE} must name a folder that exists, got {folder!r}; make it, empty, before "
            "the first process starts"
        )
    # Chosen when prometheus_client was imported. It has no public name for it.
    if not values.ValueClass._multiprocess:  # noqa: SLF001 - see above
        raise SettingsError(
            f"{VARIABLE} was set after prometheus_client had been imported, which ignores it then; "
            "set it in the environment of the process"
        )
    return True


class ProcessWriter:
    """Writes what a source reads to the files of this process, each second and at its end.

    A forked child goes on with files of its own, in which what its parent has counted is missing.

    Args:
        source: what is written.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        # Held during a fork: prometheus_client has one lock for all values, and a child that is
        # forked while the thread holds it never gets it.
        self.lock = make_lock()
        self._values: dict[tuple[Metric, Labels, str], Any] = {}
        self._growth = Growth()
        self._gauges: set[tuple[Metric, Labels]] = set()
        self._closed = False
        self.write()
        self._start()
        _writers.add(self)
        atexit.register(self.write)

    def write(self) -> None:
        """Write what has changed since the last time."""
        with self.lock:
            if self._closed:
                return
            readings, unknown = self._source.read(), set(self._gauges)
            for metric, numbers in readings.numbers.items():
                for labels, number in numbers.items():
                    value = self._value(metric, labels, metric.name)
                    if metric.kind is Kind.COUNTER:
                        value.inc(self._growth.of(metric, labels, number))
                    else:
                        value.set(number)
                        self._gauges.add((metric, labels))
                        unknown.discard((metric, labels))
            for metric, histograms in readings.histograms.items():
                for labels, histogram in histograms.items():
                    self._grow(metric, labels, histogram)
            for metric, labels in unknown:
                self._forget(metric, labels)

    def close(self) -> None:
        """Write a last time, and end."""
        atexit.unregister(self.write)
        _writers.discard(self)
        self._stop.set()
        self.write()
        with self.lock:
            self._closed = True  # the thread may be about to write
            for metric, labels in tuple(self._gauges):
                self._forget(metric, labels)

    def go_on_in_child(self) -> None:
        """Begin with what this process counts itself."""
        self._growth = Growth()
        self._gauges.clear()
        readings = self._source.read()
        for metric, numbers in readings.numbers.items():
            for labels, number in numbers.items():
                self._growth.of(metric, labels, number)
        for metric, histograms in readings.histograms.items():
            for labels, histogram in histograms.items():
                self._growth.of_histogram(metric, labels, histogram)
        self._start()

    def _start(self) -> None:
        self._stop = threading.Event()
        threading.Thread(
            target=self._write_often, args=(self._stop,), name="fusewire metrics", daemon=True
        ).start()

    def _write_often(self, stop: threading.Event) -> None:
        while not stop.wait(_INTERVAL):
            try:
                self.write()
            except Exception:
                logger.exception("metrics could not be written; they are tried again in a second")

    def _grow(self, metric: Metric, labels: Labels, histogram: Histogram) -> None:
        more = self._growth.of_histogram(metric, labels, histogram)
        for bound, count in zip(bounds_of(more), more.counts, strict=True):
            self._value(metric, labels, f"{metric.name}_bucket", bound).inc(count)
        self._value(metric, labels, f"{metric.name}_sum").inc(more.seconds)

    def _forget(self, metric: Metric, labels: Labels) -> None:
        """Make a gauge unknown: a value cannot be removed from a file."""
        self._gauges.discard((metric, labels))
        self._value(metric, labels, metric.name).set(metric.combine.nothing)

    def _value(self, metric: Metric, labels: Labels, sample: str, bound: str = "") -> Any:
        """Return prometheus_client's own value of a sample, which writes what it is given."""
        key = (metric, labels, sample + bound)
        value = self._values.get(key)
        if value is None:
            family = metric.name
            if metric.kind is Kind.COUNTER:
                family = family.removesuffix("_total")
            names = metric.labels
            if bound:
                names, labels = (*names, "le"), (*labels, bound)
            mode = f"live{metric.combine.value}" if metric.kind is Kind.GAUGE else ""
            value = self._values[key] = _Value(
                metric.kind.value,
                family,
                sample,
                names,
                labels,
                metric.text,
                multiprocess_mode=mode,
            )
        return value


_Value: Any = values.ValueClass  # it has no types
_writers: WeakSet[ProcessWriter] = WeakSet()
_held: list[ProcessWriter] = []


def _before_fork() -> None:
    for writer in tuple(_writers):
        writer.lock.acquire()
        _held.append(writer)


def _after_fork() -> None:
    while _held:
        _held.pop().lock.release()


def _after_fork_in_child() -> None:
    for writer in _held:
        writer.go_on_in_child()
    _after_fork()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
)
