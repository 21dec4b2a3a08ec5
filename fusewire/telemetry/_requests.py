"""The metric of idempotency keys: what became of the requests of a server, or of a consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fusewire._locks import make_lock
from fusewire.errors import SettingsError
from fusewire.telemetry._growth import Growth
from fusewire.telemetry._metrics import Kind, Metric, Readings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REQUESTS = Metric(
    "fusewire_idempotency_requests_total",
    ("method", "result"),
    "Requests of the methods and consumers of a store of keys, by what became of them",
    Kind.COUNTER,
)

METRICS = (REQUESTS,)


@runtime_checkable
class WatchedKeys(Protocol):
    """A store of idempotency keys, of any library: see :mod:`fusewire.idempotency`."""

    def request_counts(self) -> Mapping[tuple[str, str], int]:
        """Return how many requests there were, by method and result. In any thread."""


class RequestsReader:
    """Reads what stores of keys have counted."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._watched: list[tuple[WatchedKeys, Growth]] = []
        self._totals = Readings()  # over all that were ever watched, so that no counter falls

    def watch(self, store: WatchedKeys) -> Callable[[], None]:
        """Read `store` too, and return the function that ends it.

        Raises:
            SettingsError: it is read already, and would count twice.
        """
        growth = Growth()
        with self._lock:
            if any(each is store for each, _ in self._watched):
                raise SettingsError(f"{store!r} is watched already: end that first")
            self._watched.append((store, growth))

        def end() -> None:
            with self._lock:
                if any(each is growth for _, each in self._watched):
                    self._count(store, growth)
                    self._watched = [each for each in self._watched if each[1] is not growth]

        return end

    def read(self, readings: Readings) -> None:
        """Add what all of them have counted."""
        with self._lock:
            for store, growth in self._watched:
                self._count(store, growth)
            readings.include(self._totals)

    def _count(self, store: WatchedKeys, growth: Growth) -> None:
        """Count what was counted since it was read last."""
        for labels, count in store.request_counts().items():
            self._totals.add(REQUESTS, labels, growth.of(REQUESTS, labels, count))
