"""The metrics of settings that come from files: whether they are applied, and which they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fusewire._locks import make_lock
from fusewire.errors import SettingsError
from fusewire.telemetry._growth import Growth
from fusewire.telemetry._metrics import Combine, Kind, Metric, Readings

if TYPE_CHECKING:
    from collections.abc import Callable

LAST_SUCCESSFUL = Metric(
    "fusewire_config_last_reload_successful",
    (),
    "Whether the files that were read last are applied (0 or 1); 0 while they have problems",
    combine=Combine.MIN,
)
RESTART_REQUIRED = Metric(
    "fusewire_config_restart_required",
    (),
    "Whether files have changed what takes effect only after a restart (0 or 1)",
    combine=Combine.MAX,
)
HASH = Metric(
    "fusewire_config_hash",
    ("hash",),
    "What is applied, as a hash that is the same on replicas with the same settings; always 1",
    combine=Combine.MAX,
)
RELOADS = Metric(
    "fusewire_config_reloads_total",
    ("result",),
    "Files that had changed, by whether they were applied or refused",
    Kind.COUNTER,
)

METRICS = (LAST_SUCCESSFUL, RESTART_REQUIRED, HASH, RELOADS)


class FileFigures(Protocol):
    """How files of settings stand; :class:`fusewire.config.ReloadFigures`."""

    @property
    def last_successful(self) -> bool:
        """Whether the files that were read last are applied."""

    @property
    def restart_required(self) -> bool:
        """Whether something has changed that takes effect only after a restart."""

    @property
    def hash(self) -> str:
        """What is applied, as a hash."""

    @property
    def reloads(self) -> int:
        """How often other settings have been applied."""

    @property
    def refusals(self) -> int:
        """How often files with problems were refused."""


@runtime_checkable
class WatchedFiles(Protocol):
    """Files of settings that are watched; :class:`fusewire.config.Watch`.

    Rooms do not import each other for being shown: whatever has this method can be.
    """

    def reload_figures(self) -> FileFigures:
        """Return how they stand. Waits for nothing, in any thread."""


class FilesReader:
    """Reads how watched files stand."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._watched: list[tuple[WatchedFiles, Growth]] = []
        self._totals = Readings()  # over all that were ever watched, so that no counter falls

    def watch(self, files: WatchedFiles) -> Callable[[], None]:
        """Read `files` too, and return the function that ends it.

        Raises:
            SettingsError: they are read already, and would count twice.
        """
        growth = Growth()
        with self._lock:
            if any(each is files for each, _ in self._watched):
                raise SettingsError(f"{files!r} is watched already: end that first")
            self._watched.append((files, growth))

        def end() -> None:
            with self._lock:
                if any(each is growth for _, each in self._watched):
                    self._count(files.reload_figures(), growth)
                    self._watched = [each for each in self._watched if each[1] is not growth]

        return end

    def read(self, readings: Readings) -> None:
        """Add how all of them stand."""
        with self._lock:
            for files, growth in self._watched:
                figures = files.reload_figures()
                readings.add(LAST_SUCCESSFUL, (), int(figures.last_successful))
                readings.add(RESTART_REQUIRED, (), int(figures.restart_required))
                readings.add(HASH, (figures.hash,), 1)
                self._count(figures, growth)
            readings.include(self._totals)

    def _count(self, figures: FileFigures, growth: Growth) -> None:
        """Count what was counted since they were read last."""
        for result, count in (("applied", figures.reloads), ("refused", figures.refusals)):
            labels = (result,)
            self._totals.add(RELOADS, labels, growth.of(RELOADS, labels, count))
