"""Stores of idempotency keys, watched: what became of the requests of their methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fusewire.errors import SettingsError
from fusewire.idempotency import SQLiteStore
from fusewire.telemetry.opentelemetry import instrument
from fusewire.telemetry.prometheus import export
from tests.support.scraping import scrape

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from fusewire.breaker import BreakerRegistry

NAME = "fusewire_idempotency_requests_total"
CHARGE = "/payments.v1.Payments/Charge"


@pytest.fixture
def store(tmp_path: Path) -> SQLiteStore:
    return SQLiteStore(tmp_path / "keys.db")


def shown(to: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Return the counts that are not 0, by method and result."""
    return {labels: value for labels, value in scrape(to).named(NAME).items() if value}


def test_nothing_is_shown_of_keys_without_a_watch(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    export(circuits, to=to)
    assert NAME not in scrape(to).names()


def test_requests_are_shown_by_method_and_result(
    store: SQLiteStore, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    export(circuits, to=to).watch(store)
    store.requests.expect([CHARGE])
    assert scrape(to)(NAME, method=CHARGE, result="in-doubt") == 0
    for result in ("made", "replayed", "made"):
        store.requests.count(CHARGE, result)
    assert shown(to) == {(CHARGE, "made"): 2, (CHARGE, "replayed"): 1}


def test_stores_of_one_method_are_shown_as_one_and_counts_do_not_fall(
    store: SQLiteStore, circuits: BreakerRegistry, to: CollectorRegistry, tmp_path: Path
) -> None:
    other = SQLiteStore(tmp_path / "others.db")
    exporter = export(circuits, to=to)
    end = exporter.watch(store)
    exporter.watch(other)
    for each in (store, other):
        each.requests.count(CHARGE, "made")
    assert shown(to) == {(CHARGE, "made"): 2}
    store.requests.count(CHARGE, "made")
    end()
    store.requests.count(CHARGE, "made")
    assert shown(to) == {(CHARGE, "made"): 3}


def test_a_store_counts_once(
    store: SQLiteStore, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    exporter = export(circuits, to=to)
    exporter.watch(store)
    with pytest.raises(SettingsError, match="is watched already"):
        exporter.watch(store)


def test_opentelemetry_shows_the_same(store: SQLiteStore, circuits: BreakerRegistry) -> None:
    reader = InMemoryMetricReader()
    with instrument(circuits, meter_provider=MeterProvider([reader])) as telemetry:
        telemetry.watch(store)
        store.requests.count(CHARGE, "made")
        data = reader.get_metrics_data()
        assert data is not None
        (metric,) = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "fusewire.idempotency_requests"
        ]
    assert metric.unit == "{request}"
    values = {
        tuple((point.attributes or {}).values()): getattr(point, "value", None)
        for point in metric.data.data_points
    }
    assert values[CHARGE, "made"] == 1
    assert values[CHARGE, "replayed"] == 0
