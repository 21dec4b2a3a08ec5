"""All that exporters show of a process, read at one moment."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import TYPE_CHECKING

from fusewire._validation import Rule
from fusewire.telemetry._circuits import BASIC, DETAIL, DURATION, PROCESSES, CircuitReader
from fusewire.telemetry._consumers import METRICS as CONSUMER_METRICS
from fusewire.telemetry._consumers import ConsumersReader
from fusewire.telemetry._files import METRICS as FILE_METRICS
from fusewire.telemetry._files import FilesReader
from fusewire.telemetry._metrics import Combine, Metric, Readings
from fusewire.telemetry._requests import METRICS as REQUEST_METRICS
from fusewire.telemetry._requests import RequestsReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker import BreakerRegistry
    from fusewire.telemetry._consumers import Consumer
    from fusewire.telemetry._files import WatchedFiles
    from fusewire.telemetry._requests import WatchedKeys

INFO = Metric(
    "fusewire_info", ("version",), "The version of Fusewire; always 1", combine=Combine.MAX
)

_WATCHED_METRICS = (*CONSUMER_METRICS, *FILE_METRICS, *REQUEST_METRICS)

METRICS = (*BASIC, *DETAIL, DURATION, PROCESSES, *_WATCHED_METRICS, INFO)
"""Every metric that there is."""


PATTERNS = Rule(
    "a collection of names or patterns",
    lambda value: (
        isinstance(value, Collection)
        and not isinstance(value, str)
        and all(isinstance(each, str) for each in value)
    ),
)
"""What chooses the circuits whose durations are shown."""


class Source:
    """What is shown of a process: its circuits, and what it is told to watch.

    Reading takes no longer while a broker is away: consumers keep their status up to date by
    themselves.

    Args:
        registry: where the circuits are.
        detail: whether to read more of each circuit.
        durations: names or patterns of the circuits whose durations are read.
        max_circuits: how many circuits get series of their own.
        processes: whether several processes share one scrape.
        restored: whether durations include those that came from snapshots.
    """

    def __init__(
        self,
        registry: BreakerRegistry,
        *,
        detail: bool,
        durations: Collection[str],
        max_circuits: int,
        processes: bool,
        restored: bool = True,
    ) -> None:
        self._circuits = CircuitReader(
            registry,
            detail=detail,
            durations=durations,
            max_circuits=max_circuits,
            processes=processes,
            restored=restored,
        )
        self._consumers = ConsumersReader(self._circuits.has_own_series)
        self._files = FilesReader()
        self._requests = RequestsReader()
        self._version = version("fusewire")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What it may read."""
        return (*self._circuits.metrics, *_WATCHED_METRICS, INFO)

    def watch(self, consumer: Consumer) -> Callable[[], None]:
        """Read `consumer` too, and return the function that ends it."""
        return self._consumers.watch(consumer)

    def watch_files(self, files: WatchedFiles) -> Callable[[], None]:
        """Read how `files` of settings stand too, and return the function that ends it."""
        return self._files.watch(files)

    def watch_keys(self, store: WatchedKeys) -> Callable[[], None]:
        """Read what `store` of keys has counted too, and return the function that ends it."""
        return self._requests.watch(store)

    @property
    def reads_durations(self) -> bool:
        """Whether durations of calls are read."""
        return DURATION in self._circuits.metrics

    def read_circuits(self) -> Readings:
        """Return the values of the metrics of circuits now. Safe to call in any thread."""
        readings = Readings()
        self._circuits.read(readings)
        return readings

    def read(self) -> Readings:
        """Return the values of all metrics now. Safe to call in any thread."""
        readings = Readings()
        self._circuits.read(readings)
        self._consumers.read(readings)
        self._files.read(readings)
        self._requests.read(readings)
        readings.add(INFO, (self._version,), 1)
        return readings
