"""What a program calls to have its circuits and consumers exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry

from fusewire._validation import COUNT, SWITCH, check, instance_of
from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.errors import SettingsError
from fusewire.telemetry._source import PATTERNS, Source
from fusewire.telemetry._watcher import Watcher
from fusewire.telemetry.prometheus._collector import SourceCollector
from fusewire.telemetry.prometheus._processes import ProcessWriter, shares_scrapes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class Exporter(Watcher):
    """Exports circuits and consumers until it is closed; made by :func:`export`.

    What several processes have counted stays in their files.
    """

    def __init__(self, source: Source, close: Callable[[], None]) -> None:
        super().__init__(source)
        self._stack.callback(close)


def export(
    registry: BreakerRegistry | None = None,
    *,
    to: CollectorRegistry = REGISTRY,
    detail: bool = False,
    durations: Collection[str] = (),
    max_circuits: int = 1000,
) -> Exporter:
    """Export all circuits that a registry has and will have.

    Values are read when they are scraped; calls pay nothing for it. Each circuit has ten series,
    and `detail` adds ten.

    If ``PROMETHEUS_MULTIPROC_DIR`` is set, a thread writes the values to the files of
    prometheus_client's multiprocess mode instead, once a second and at the end of the process. Call
    it in each worker rather than before they are forked. If it was called before, each forked
    worker goes on with counts of its own.

    Args:
        registry: where the circuits are; the process's own by default.
        to: what is scraped; prometheus_client's own registry by default.
        detail: export ignored, slow and late calls, probes and the window's ratios too.
        durations: names or patterns, such as ``"/payments.*"``, of the circuits that get a
            histogram of how long calls take: up to 32 more series each. All calls of the registry
            are measured then.
        max_circuits: how many circuits get series of their own. All others are added up as the
            circuit ``_other``.

    Raises:
        SettingsError: an argument is not valid, something is exported to `to` already, or
            ``PROMETHEUS_MULTIPROC_DIR`` cannot be used.
    """
    check("registry", registry, instance_of(BreakerRegistry).or_none)
    check("to", to, instance_of(CollectorRegistry))
    check("detail", detail, SWITCH)
    check("max_circuits", max_circuits, COUNT)
    check("durations", durations, PATTERNS)
    if registry is None:  # an empty one is false
        registry = default_registry()
    processes = shares_scrapes()
    source = Source(
        registry,
        detail=detail,
        durations=durations,
        max_circuits=max_circuits,
        processes=processes,
    )
    collector = SourceCollector(source)
    try:
        to.register(collector)
    except ValueError as error:
        raise SettingsError(
            f"metrics of these names are exported already: {error}. Close the exporter that does "
            "it, or export to another CollectorRegistry"
        ) from error
    if durations:
        registry.measure_durations()
    if not processes:
        return Exporter(source, lambda: to.unregister(collector))
    writer = ProcessWriter(source)

    def close() -> None:
        to.unregister(collector)
        writer.close()

    return Exporter(source, close)
