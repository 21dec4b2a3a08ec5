"""What is exported, what is refused, and when it ends."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter

from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.errors import SettingsError
from fusewire.telemetry.prometheus import export
from tests.support.scraping import scrape

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def default() -> Iterator[BreakerRegistry]:
    registry = default_registry()
    registry.get("test-of-the-export")
    yield registry
    registry.remove("test-of-the-export")


def test_by_default_the_process_exports_its_own_circuits(default: BreakerRegistry) -> None:
    with export():
        shown = scrape(REGISTRY)
        assert shown("circuit_breaker_state", circuit_name="test-of-the-export") == 0
        assert shown("fusewire_info", version=version("fusewire")) == 1
    assert scrape(REGISTRY)("circuit_breaker_state", circuit_name="test-of-the-export") is None


def test_an_exporter_may_be_closed_twice(circuits: BreakerRegistry, to: CollectorRegistry) -> None:
    exporter = export(circuits, to=to)
    exporter.close()
    exporter.close()
    with export(circuits, to=to):
        pass


def test_a_second_export_to_the_same_place_is_refused(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    export(circuits, to=to)
    with pytest.raises(SettingsError, match="exported already"):
        export(circuits, to=to)


def test_metrics_of_the_same_names_are_noticed(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    Counter("circuit_breaker_calls_total", "the article's own", ["circuit_name"], registry=to)
    with pytest.raises(SettingsError, match="circuit_breaker_calls"):
        export(circuits, to=to)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"registry": "orders"}, "registry must be a BreakerRegistry, or None, got 'orders'"),
        ({"to": None}, "to must be a CollectorRegistry, got None"),
        ({"detail": 1}, "detail must be True or False, got 1"),
        ({"durations": "payments"}, "durations must be a collection of names or patterns"),
        ({"durations": 1}, "durations must be a collection of names or patterns, got 1"),
        ({"durations": [1]}, "durations must be a collection of names or patterns"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        export(**{"to": CollectorRegistry(), **wrong})
    assert str(caught.value).startswith(message)


def test_without_its_library_the_import_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "try: import fusewire.telemetry.prometheus\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert done.stdout.strip().endswith("pip install 'fusewire[prometheus]'")


def test_nothing_imports_telemetry() -> None:
    program = "import sys, fusewire, fusewire.testing, fusewire.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    modules = done.stdout.split()
    assert not [each for each in modules if each.startswith("fusewire.telemetry")]
    assert "prometheus_client" not in modules
