"""Code, page, rules and dashboard speak of the same metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fusewire.telemetry._metrics import Kind
from fusewire.telemetry._source import METRICS
from fusewire.telemetry.opentelemetry import _conventions
from fusewire.telemetry.opentelemetry._instruments import name_and_unit

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "prometheus.md").read_text("utf-8")
OTEL_PAGE = (ROOT / "docs" / "opentelemetry.md").read_text("utf-8")
BOARD = json.loads((ROOT / "monitoring" / "dashboard.json").read_text("utf-8"))
RULES = "".join(
    (ROOT / "monitoring" / name).read_text("utf-8") for name in ("rules.yml", "alerts.yml")
)

MADE = {metric.name for metric in METRICS}
HISTOGRAMS = {metric.name for metric in METRICS if metric.kind is Kind.HISTOGRAM}


def named(text: str) -> set[str]:
    """Return the names of metrics in a text, without those of recording rules."""
    found = re.findall(r"(?<![\w:/.-])(?:circuit_breaker|fusewire)_[a-z_]+(?![\w:])", text)
    return {
        next((each for each in HISTOGRAMS if name.startswith(f"{each}_")), name) for name in found
    }


def queries() -> set[str]:
    targets = [target for panel in BOARD["panels"] for target in panel.get("targets", [])]
    variables = [each["query"] for each in BOARD["templating"]["list"]]
    return set().union(*map(named, [*(target["expr"] for target in targets), *variables]))


def test_every_metric_has_a_name_of_its_own() -> None:
    assert len(MADE) == len(METRICS)


def test_rules_and_dashboard_use_every_metric_and_no_other() -> None:
    code = "\n".join(line for line in RULES.splitlines() if not line.strip().startswith("#"))
    assert named(code) | queries() == MADE


def test_the_page_on_opentelemetry_names_metrics_that_there_are() -> None:
    names = dict(map(name_and_unit, METRICS))
    assert len(names) == len(METRICS)
    pairs = re.findall(r"`([a-z_]+)` is `([a-z_.]+)` in `([^`]+)`", OTEL_PAGE)
    assert len(pairs) == 4
    for prometheus, name, unit in pairs:
        (metric,) = [each for each in METRICS if each.name == prometheus]
        assert name_and_unit(metric) == (name, unit)
    # Attributes and events of spans have the same namespaces.
    others = {value for value in vars(_conventions).values() if isinstance(value, str)}
    dotted = set(re.findall(r"`((?:circuit_breaker|fusewire)\.[a-z_]+)`", OTEL_PAGE))
    assert dotted - others <= names.keys()


def test_the_page_lists_every_metric_and_no_other() -> None:
    assert named(PAGE) == MADE


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_page_has_its_kind_and_labels(metric: object) -> None:
    (metric,) = [each for each in METRICS if each is metric]
    labels = ", ".join(metric.labels) or "none"
    assert f"| `{metric.name}` | {metric.kind.value} | {labels} |" in PAGE
