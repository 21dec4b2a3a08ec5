"""The table of faults in Markdown: a row for each, added as the tests run."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fusewire.testing.faults import Account

FILE_VARIABLE = "FUSEWIRE_TEST_FAULTS_TABLE"
"""Environment variable with the file to write the table to."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "runs": (),
    "messages": (),
    "handled": ("handled",),
    "elsewhere": ("parked", "delayed", "dead", "in_source"),
    "deleted by hand": ("removed",),
    "explained duplicates": ("duplicated_explained",),
    "lost": ("lost",),
    "unexpected": ("unexpected",),
    "unexplained duplicates": ("duplicated_unexplained",),
    "repeated effects": ("repeated_effects",),
}
"""What each column counts; messages are all that were published."""
_MESSAGES = ("handled", "elsewhere", "deleted by hand", "lost")


@dataclass
class Report:
    """The results of a run so far."""

    begin: float
    brokers: set[str] = field(default_factory=set)
    rows: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, fault: str, accounts: Sequence[Account]) -> None:
        """Add to the row of a fault, which may run more than once."""
        row = self.rows.setdefault(fault, Counter())
        row["runs"] += 1
        for heading, kinds in COLUMNS.items():
            row[heading] += sum(len(getattr(one, kind)) for one in accounts for kind in kinds)
        row["messages"] = sum(row[heading] for heading in _MESSAGES)

    def __str__(self) -> str:
        total: Counter[str] = Counter()
        for row in self.rows.values():
            total.update(row)
        brokers = " and ".join(sorted(self.brokers))
        minutes = (time.monotonic() - self.begin) / 60
        lines = [
            f"{brokers}: {total['messages']:,} messages in {minutes:.0f} minutes.",
            "",
            f"| fault | {' | '.join(COLUMNS)} |",
            f"|---|{'---:|' * len(COLUMNS)}",
            *(_line(fault, row) for fault, row in self.rows.items()),
            _line("**all**", total),
        ]
        return "\n".join(lines) + "\n"


def _line(fault: str, row: Counter[str]) -> str:
    return f"| {fault} | {' | '.join(f'{row[heading]:,}' for heading in COLUMNS)} |"


REPORT = pytest.StashKey[Report]()


def add_row(config: pytest.Config, fault: str, accounts: Sequence[Account], *, broker: str) -> None:
    """Add a row to the table of this run."""
    report = config.stash[REPORT]
    report.brokers.add(broker)
    report.add(fault, accounts)


def note(config: pytest.Config, line: str) -> None:
    """Print a line below the table."""
    config.stash[REPORT].notes.append(line)


def begin(config: pytest.Config) -> None:
    """Start the table of this run."""
    config.stash[REPORT] = Report(time.monotonic())


def write(config: pytest.Config) -> None:
    """Write the table to the file that the environment names, if any."""
    wanted = os.environ.get(FILE_VARIABLE)
    if wanted and config.stash[REPORT].rows:
        path = Path(wanted)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(config.stash[REPORT]))


def show(terminal: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table and the notes."""
    report = config.stash.get(REPORT, None)
    if report is not None and report.rows:
        terminal.section("faults")
        terminal.write(str(report))
        for line in report.notes:
            terminal.write_line(line)
