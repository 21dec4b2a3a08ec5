"""Makes the Grafana dashboard: ``python -m monitoring.dashboard`` writes ``dashboard.json``.

`make dashboard` runs it, and `make prometheus` evaluates every query of it on a Prometheus that has
scraped an outage.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common, dashboard, prometheus, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import StackingMode

from monitoring.circuit_graphs import STATE_QUERY, STATES
from monitoring.graphs import ROWS

if TYPE_CHECKING:
    from monitoring.graph import Graph

FILE = Path(__file__).with_name("dashboard.json")

_HEIGHT = 8
_WIDTH = 8  # a third of the whole
_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def make() -> str:
    """Return the dashboard as JSON."""
    board = (
        dashboard.Dashboard("Fusewire")
        .uid("fusewire")
        .description("Circuits, parked messages and replays. Made by monitoring/dashboard.py.")
        .tags(["fusewire"])
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
    )
    for name, query in (
        ("job", "label_values(fusewire_info, job)"),
        ("circuit", 'label_values(circuit_breaker_state{job=~"$job"}, circuit_name)'),
        ("queue", 'label_values(fusewire_broker_connected{job=~"$job"}, queue)'),
    ):
        board = board.with_variable(
            dashboard.QueryVariable(name)
            .label(name)
            .query(query)
            .datasource(_SOURCE)
            .multi(True)  # noqa: FBT003 - the library's builders take their values so
            .include_all(True)  # noqa: FBT003 - see above
            .all_value(".*")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
    for title, graphs in ROWS.items():
        board = board.with_row(dashboard.Row(title))
        if title == "Circuits":
            board = board.with_panel(_states())
        for graph in graphs:
            board = board.with_panel(_panel(graph))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _states() -> statetimeline.Panel:
    mapping = models.ValueMap(
        options={
            str(value): models.ValueMappingResult(text=text, color=color, index=value)
            for value, (text, color) in STATES.items()
        }
    )
    return (
        statetimeline.Panel()
        .title("State")
        .description("Open if it is on any replica, as of each scrape.")
        .datasource(_SOURCE)
        .mappings([mapping])
        .row_height(0.8)
        .height(_HEIGHT)
        .span(3 * _WIDTH)
        .with_target(_target(STATE_QUERY, "{{circuit_name}}", 0))
    )


def _panel(graph: Graph) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(graph.title)
        .description(graph.about)
        .datasource(_SOURCE)
        .unit(graph.unit)
        .min(0)
        .height(_HEIGHT)
        .span(_WIDTH)
    )
    if graph.most is not None:
        panel = panel.max(graph.most)
    if graph.stacked:
        panel = panel.fill_opacity(30).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for number, (query, legend) in enumerate(graph.queries):
        panel = panel.with_target(_target(query, legend, number))
    return panel


def _target(query: str, legend: str, number: int) -> prometheus.Dataquery:
    name = chr(ord("A") + number)
    return prometheus.Dataquery().expr(query).legend_format(legend).ref_id(name)


if __name__ == "__main__":
    FILE.write_text(make(), encoding="utf-8")
