"""What a scrape shows, as a test asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator


class Scrape:
    """The values of one scrape. Two values of one series are an error, as for Prometheus.

    Args:
        text: what was scraped.
    """

    def __init__(self, text: str) -> None:
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self.kinds: dict[str, str] = {}
        for family in text_string_to_metric_families(text):
            assert family.name not in self.kinds, f"{family.name} comes twice"
            self.kinds[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self._values, f"{key} comes twice"
                self._values[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return a value; None if it is absent."""
        return self._values.get((name, frozenset(labels.items())))

    def __iter__(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Iterate over names, labels and values."""
        return ((name, dict(labels), value) for (name, labels), value in self._values.items())

    def named(self, name: str, *without: str) -> dict[tuple[str, ...], float]:
        """Return the values of one name, by the values of its labels in order of their names."""
        return {
            tuple(labels[each] for each in sorted(labels) if each not in without): value
            for found, labels, value in self
            if found == name
        }

    def names(self) -> set[str]:
        """Return the names of all series."""
        return {name for name, _ in self._values}


def scrape(registry: CollectorRegistry) -> Scrape:
    """Scrape a registry of prometheus_client."""
    return Scrape(generate_latest(registry).decode())
