"""Counts the cells of the truth tables in docs/exactly-once.md: a row on a store is a cell.

A plugin of `make truth-table`. A cell passes if all tests of its row do that ran on its store. What
it prints goes to the file that `FUSEWIRE_TEST_TRUTH_TABLE` names as well.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.idempotent_places import PLACES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pytest

FILE_VARIABLE = "FUSEWIRE_TEST_TRUTH_TABLE"
PAGE = Path(__file__).parents[2] / "docs" / "exactly-once.md"

TABLES = {
    "What callers get": ("idempotency", "calls"),
    "Effects elsewhere": ("idempotency", "effects elsewhere"),
    "The inbox: the consumer's half": ("inbox", "inbox"),
}
"""The folder of the tests and the column here, by the heading in the page."""

_ROW = re.compile(r"^\| .* \| `(test_\w+)` \|$")
_TEST = re.compile(r"^tests/(\w+)/.*::(\w+)\[(.+)\]$")

Passed = dict[tuple[str, str, str], bool]
"""Whether all tests of a name have passed, by folder, test and store."""

_passed: Passed = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a test has ended."""
    if report.skipped or (report.when != "call" and report.passed):
        return
    if found := _TEST.match(report.nodeid):
        folder, test, parameters = found.groups()
        for place in PLACES:
            if place.name in parameters.split("-"):
                cell = (folder, test, place.name)
                _passed[cell] = _passed.get(cell, True) and report.passed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and write it."""
    text = as_markdown(rows_of(PAGE.read_text("utf-8")), _passed)
    terminalreporter.section("truth tables")
    terminalreporter.write(text)
    if wanted := os.environ.get(FILE_VARIABLE):
        Path(wanted).parent.mkdir(parents=True, exist_ok=True)
        Path(wanted).write_text(text, "utf-8")


def rows_of(page: str) -> dict[str, list[str]]:
    """Return the test of each row of the page's truth tables, by the table's heading."""
    rows: dict[str, list[str]] = defaultdict(list)
    heading = ""
    for line in page.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif heading in TABLES and (row := _ROW.match(line)):
            rows[heading].append(row[1])
    return rows


def as_markdown(rows: Mapping[str, list[str]], passed: Passed) -> str:
    """Return how many cells of each store there are and pass."""
    columns = [TABLES[heading][1] for heading in rows]
    lines = [f"| store | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    cells: list[bool] = []
    for place in PLACES:
        kind = "asyncio" if place.aio else "sync"
        shown = [f"{place.name.removeprefix('aio ')}, {kind}"]
        for heading, tests in rows.items():
            own = list(_cells(TABLES[heading][0], tests, place.name, passed))
            cells += own
            shown.append(f"{sum(own)} of {len(own)}")
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join([f"{sum(cells)} of {len(cells)} cells pass.", "", *lines, ""])


def _cells(folder: str, tests: list[str], store: str, passed: Passed) -> Iterator[bool]:
    for test in tests:
        if (folder, test, store) in passed:
            yield passed[folder, test, store]
