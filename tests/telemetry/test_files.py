"""Files of settings, watched: what is applied, what was refused, and what needs a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fusewire.config import Watch, load
from fusewire.errors import SettingsError
from fusewire.telemetry.opentelemetry import instrument
from fusewire.telemetry.prometheus import export
from tests.support.scraping import Scrape, scrape

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from fusewire.breaker import BreakerRegistry


def say(file: Path, threshold: object, attempts: int = 5) -> None:
    circuits = f"breakers: {{circuits: {{payments: {{failure_threshold: {threshold}}}}}}}"
    consumers = f"consumers: {{orders: {{retry: {{max_attempts: {attempts}}}}}}}"
    file.write_text(f"fusewire: {{{circuits}, {consumers}}}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fusewire.yaml"
    say(path, 2)
    return path


@pytest.fixture
def watch(file: Path, circuits: BreakerRegistry) -> Watch:
    return load(file, env={}).watching(circuits)


def figures(shown: Scrape) -> dict[str, float | None]:
    found = {
        name: shown(f"fusewire_config_{name}")
        for name in ("last_reload_successful", "restart_required")
    }
    return found | {
        result: shown("fusewire_config_reloads_total", result=result)
        for result in ("applied", "refused")
    }


def hashes(shown: Scrape) -> dict[tuple[str, ...], float]:
    return shown.named("fusewire_config_hash")


def test_nothing_is_shown_of_files_without_a_watch(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    export(circuits, to=to)
    assert not [name for name in scrape(to).names() if name.startswith("fusewire_config_")]


def test_files_that_are_applied_refused_and_need_a_restart(
    file: Path, watch: Watch, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    watch.config.consumer("orders")
    exporter = export(circuits, to=to)
    exporter.watch(watch)
    shown = scrape(to)
    well = {"last_reload_successful": 1, "restart_required": 0, "applied": 0, "refused": 0}
    assert figures(shown) == well
    (first,) = hashes(shown).items()
    assert first[1] == 1
    say(file, 3)
    watch.look()
    shown = scrape(to)
    assert figures(shown) == well | {"applied": 1}
    assert len(hashes(shown)) == 1
    assert hashes(shown).keys() != {first[0]}
    say(file, "'x'")
    watch.look()
    assert figures(scrape(to)) == well | {
        "last_reload_successful": 0,
        "applied": 1,
        "refused": 1,
    }
    assert hashes(scrape(to)) == hashes(shown), "what is applied has not changed"
    say(file, 2, attempts=9)
    watch.look()
    assert figures(scrape(to)) == {
        "last_reload_successful": 1,
        "restart_required": 1,
        "applied": 2,
        "refused": 1,
    }


def test_counters_do_not_fall_when_a_watch_ends(
    file: Path, watch: Watch, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    exporter = export(circuits, to=to)
    end = exporter.watch(watch)
    say(file, 3)
    watch.look()
    end()
    shown = figures(scrape(to))
    assert shown["applied"] == 1
    assert shown["last_reload_successful"] is None
    other = load(file, env={}).watching(circuits)
    exporter.watch(other)
    say(file, "'x'")
    other.look()
    assert figures(scrape(to)) == {
        "last_reload_successful": 0,
        "restart_required": 0,
        "applied": 1,
        "refused": 1,
    }


def test_of_several_watches_the_worst_is_shown(
    file: Path, tmp_path: Path, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    other = tmp_path / "other.yaml"
    say(other, 4)
    watches = [load(each, env={}).watching(circuits) for each in (file, other)]
    with export(circuits, to=to) as exporter:
        for watch in watches:
            exporter.watch(watch)
        say(other, "'x'")
        for watch in watches:
            watch.look()
        shown = scrape(to)
        assert figures(shown)["last_reload_successful"] == 0
        assert figures(shown)["refused"] == 1
        assert len(hashes(shown)) == 2


def test_a_watch_counts_once(
    watch: Watch, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    exporter = export(circuits, to=to)
    exporter.watch(watch)
    with pytest.raises(SettingsError, match="is watched already"):
        exporter.watch(watch)


def test_opentelemetry_shows_the_same(file: Path, watch: Watch, circuits: BreakerRegistry) -> None:
    reader = InMemoryMetricReader()
    with instrument(circuits, meter_provider=MeterProvider([reader])) as telemetry:
        telemetry.watch(watch)
        say(file, "'x'")
        watch.look()
        data = reader.get_metrics_data()
        assert data is not None
        shown = {
            (metric.name, *(point.attributes or {}).values()): getattr(point, "value", None)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }
    assert shown["fusewire.config_last_reload_successful",] == 0
    assert shown["fusewire.config_restart_required",] == 0
    assert shown["fusewire.config_reloads", "refused"] == 1
    assert shown["fusewire.config_hash", watch.reload_figures().hash] == 1
