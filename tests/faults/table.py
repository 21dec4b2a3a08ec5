"""The table of faults, in Markdown: a row for each, told as the tests run; and a file of them."""

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
"""Names the file that the table is written to, if one is wanted."""

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
"""What is counted under each heading; messages are all that were published."""
_MESSAGES = ("handled", "elsewhere", "deleted by hand", "lost")


@dataclass
class Table:
    """What a run has found out so far."""

    begin: float
    versions: set[str] = field(default_factory=set)
    rows: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, fault: str, accounts: Sequence[Account]) -> None:
        """Add to the row of a fault, which may be tried more than once."""
        row = self.rows.setdefault(fault, Counter())
        row["runs"] += 1
        for heading, kinds in COLUMNS.items():
            row[heading] += sum(len(getattr(one, kind)) for one in accounts for kind in kinds)
        row["messages"] = sum(row[heading] for heading in _MESSAGES)

    def __str__(self) -> str:
        total: Counter[str] = Counter()
        for row in self.rows.values():
            total.update(row)
        versions = " and ".join(sorted(self.versions))
        minutes = (time.monotonic() - self.begin) / 60
        lines = [
            f"RabbitMQ {versions}: {total['messages']:,} messages in {minutes:.0f} minutes.",
            "",
            f"| fault | {' | '.join(COLUMNS)} |",
            f"|---|{'---:|' * len(COLUMNS)}",
            *(_line(fault, row) for fault, row in self.rows.items()),
            _line("**all**", total),
        ]
        return "\n".join(lines) + "\n"


def _line(fault: str, row: Counter[str]) -> str:
    return f"| {fault} | {' | '.join(f'{row[heading]:,}' for heading in COLUMNS)} |"


TABLE = pytest.StashKey[Table]()


def tell(config: pytest.Config, fault: str, accounts: Sequence[Account], *, version: str) -> None:
    """Add a row to the table of this run."""
    table = config.stash[TABLE]
    table.versions.add(version)
    table.add(fault, accounts)


def note(config: pytest.Config, line: str) -> None:
    """Have a line printed below the table."""
    config.stash[TABLE].notes.append(line)


def begin(config: pytest.Config) -> None:
    """Begin the table of this run."""
    config.stash[TABLE] = Table(time.monotonic())


def write(config: pytest.Config) -> None:
    """Write the table to its file, if one is wanted."""
    wanted = os.environ.get(FILE_VARIABLE)
    if wanted and config.stash[TABLE].rows:
        path = Path(wanted)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(config.stash[TABLE]))


def show(terminal: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table and the notes."""
    table = config.stash.get(TABLE, None)
    if table is not None and table.rows:
        terminal.section("faults")
        terminal.write(str(table))
        for line in table.notes:
            terminal.write_line(line)
