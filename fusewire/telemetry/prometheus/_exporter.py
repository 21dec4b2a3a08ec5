"""What a program calls to have its circuits and consumers exported."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Self

from prometheus_client import REGISTRY, CollectorRegistry

from fusewire._validation import COUNT, SWITCH, Rule, check, instance_of, invalid
from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.errors import SettingsError
from fusewire.telemetry._source import Source
from fusewire.telemetry.prometheus._collector import SourceCollector
from fusewire.telemetry.prometheus._processes import ProcessWriter, shares_scrapes

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fusewire.forwarding import ParkedCalls
    from fusewire.parking import ParkingConsumer

_PATTERNS = Rule(
    "a collection of names or patterns",
    lambda value: (
        isinstance(value, Collection)
        and not isinstance(value, str)
        and all(isinstance(each, str) for each in value)
    ),
)


class Exporter:
    """Exports circuits and consumers until it is closed; made by :func:`export`.

    It is a context manager that closes itself.
    """

    def __init__(self, source: Source, close: Callable[[], None]) -> None:
        self._source = source
        self._close = close

    def watch(self, consumer: ParkingConsumer | ParkedCalls) -> Callable[[], None]:
        """Export a consumer or a store of calls too.

        Counts of messages begin here. Several consumers of one queue are shown as one. A scrape
        reads what the consumer knows, and waits for no broker.

        Returns:
            A function that ends it. Call it when the consumer is not used any more; its counts
            stay.

        Raises:
            SettingsError: it has no status to read.
        """
        for name in ("status", "add_listener"):
            if not callable(getattr(consumer, name, None)):
                raise invalid("consumer", "a ParkingConsumer or ParkedCalls", consumer)
        return self._source.watch(consumer)

    def close(self) -> None:
        """End the export. What several processes have counted stays in their files."""
        self._close()
        self._close = _nothing

    def __enter__(self) -> Self:
        """Return the exporter."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


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
    and `detail` adds eight.

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
    check("durations", durations, _PATTERNS)
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


def _nothing() -> None:
    """Do what closing a closed exporter does."""
