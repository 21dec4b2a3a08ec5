"""Every query of the dashboard shows something of the demo's outage: no panel is blank by mistake.

Grafana itself is not run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from monitoring import dashboard

if TYPE_CHECKING:
    from tests.support.scraped_outage import ScrapedOutage

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(300)]

MOMENTS = ("closed", "open", "replay", "after")

NEVER_IN_THE_DEMO = {
    "Processes by state",  # each process has a port of its own
    "Window",  # the demo's circuits open on failures in a row, and have none
    "Settings in effect",  # it reads no files of settings
    "Files that had changed",
    "Requests with keys",  # its server exports nothing
    "Requests that a person looks at",
}

NOT_ALWAYS = {
    "Transitions": MOMENTS,  # none in the last seconds of any of these moments, perhaps
    "How long messages wait": ("closed", "after"),  # none does
    "Failures among admitted calls": ("open",),  # none in the last seconds, perhaps
    "Window and replays in flight": ("closed", "open"),  # nothing was replayed yet
    "Slow replays, and gain": ("closed", "open"),
    "What counts as slow": ("closed", "open", "replay"),
    "Replicas": ("closed", "open"),
    "Cuts of the window": ("closed", "open"),
}
"""When the panels may show nothing."""

BOARD: dict[str, Any] = json.loads(dashboard.FILE.read_text("utf-8"))
PANELS = {panel["title"]: panel for panel in BOARD["panels"] if panel["type"] != "row"}
VARIABLES = {each["name"]: each for each in BOARD["templating"]["list"] if each["type"] == "query"}


def filled_in(query: str) -> str:
    """Return a query as Grafana sends it when everything is chosen."""
    for name in VARIABLES:
        query = query.replace(f"${name}", ".*")
    query = query.replace("$__rate_interval", "10s")
    assert "$" not in query
    return query


def test_the_file_is_what_its_program_makes() -> None:
    assert dashboard.FILE.read_text("utf-8") == dashboard.make(), "run make dashboard"


def test_no_two_panels_have_one_title() -> None:
    assert len(PANELS) == len([each for each in BOARD["panels"] if each["type"] != "row"])
    assert PANELS.keys() >= NEVER_IN_THE_DEMO | NOT_ALWAYS.keys()


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_shows_what_happened(outage: ScrapedOutage, title: str) -> None:
    for target in PANELS[title]["targets"]:
        query = filled_in(target["expr"])
        shown = {
            moment for moment in MOMENTS if outage.prometheus.query(query, outage.moments[moment])
        }
        if title in NEVER_IN_THE_DEMO:
            assert shown == set(), "it is not in the demo after all"
            continue
        assert shown >= set(MOMENTS) - set(NOT_ALWAYS.get(title, ())), query
        if not shown:
            begin, end = outage.moments["closed"], outage.moments["after"]
            seconds = [begin + step for step in range(int(end - begin))]
            assert any(outage.prometheus.query(query, at) for at in seconds), query


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_has_values(outage: ScrapedOutage, name: str) -> None:
    selector, label = VARIABLES[name]["query"].removeprefix("label_values(")[:-1].rsplit(", ", 1)
    found = outage.prometheus.label_values(label, filled_in(selector))
    assert found
    if name == "job":
        assert found == ["shop"]


def test_the_legends_name_labels_that_there_are(outage: ScrapedOutage) -> None:
    for title in PANELS.keys() - NEVER_IN_THE_DEMO:
        for target in PANELS[title]["targets"]:
            found = [
                labels
                for moment in MOMENTS
                for labels, _ in outage.prometheus.query(
                    filled_in(target["expr"]), outage.moments[moment]
                )
            ]
            wanted = {part.partition("}}")[0] for part in target["legendFormat"].split("{{")[1:]}
            # A label that is empty is absent in Prometheus.
            there = set().union(*found)
            assert there == wanted or not found, (title, target)
