"""What many runs of the cells came to, as Markdown tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.parking.recovery.cells import TABLES, TOLERANCE

if TYPE_CHECKING:
    from tests.parking.recovery.cells import Cell
    from tests.parking.recovery.simulation import Result

GOAL = 47
"""Cells of the matrix that have to reach the goal."""

HEADINGS = {
    "matrix": "Capacity ÷ live calls, and service time; the server collapses",
    "servers": "Other servers",
    "backlogs": "Other backlogs",
    "scenarios": "Something happens in the middle",
    "knowledge": "Wrong or little knowledge",
}


class Report:
    """The results of some cells, and whether they are as expected."""

    def __init__(self, results: dict[str, list[Result]], cells: dict[str, Cell]) -> None:
        self._results = results
        self._cells = {name: cell for name, cell in cells.items() if name in results}
        self._figures = {name: cells[name].figures(runs) for name, runs in results.items()}

    @property
    def above(self) -> list[str]:
        """The cells within reach that came to more than is expected."""
        return [
            name
            for name, cell in self._cells.items()
            if cell.is_within_reach and not self._figures[name].within(cell.most)
        ]

    @property
    def missed(self) -> list[str]:
        """Those of them that did so by more than chance."""
        return [name for name in self.above if not self._may_be_chance(name)]

    def _may_be_chance(self, name: str) -> bool:
        cell = self._cells[name]
        return self._figures[name].within(cell.most + cell.chance(self._results[name]))

    @property
    def counted(self) -> list[str]:
        """The cells that count for the goal."""
        return [name for name, cell in self._cells.items() if cell.counts_for_the_goal]

    @property
    def reached(self) -> list[str]:
        """Those of them that reach it."""
        return [name for name in self.counted if self._figures[name].reaches_the_goal]

    @property
    def is_good(self) -> bool:
        wanted = len(self.counted) - (48 - GOAL)
        return not self.missed and len(self.reached) >= wanted

    def __str__(self) -> str:
        return "\n".join([*self._summary(), *map(self._table, self._tables()), *self._above()])

    def _summary(self) -> list[str]:
        runs = sum(len(results) for results in self._results.values())
        counted = self.counted
        opened = sum(result.opened > 0 for name in counted for result in self._results[name])
        over = sum(result.queue > 1 for name in counted for result in self._results[name])
        matrix_runs = sum(len(self._results[name]) for name in counted)
        text = f"""\
{runs:,} runs of {len(self._cells)} cells.

- The goal (drain at most 1.2, queue at most 1, live calls failed below 0.1 %) is reached in
  {len(self.reached)} of {len(counted)} cells.
- In {over} of those {matrix_runs:,} runs the queue was above its limit for a moment, and in
  {opened} a circuit of a replica opened again.
- More than {TOLERANCE} times what is expected: {len(self.above)} cells, {len(self.missed)} of
  them by more than chance. What is expected comes from two or three runs.

A cell is drain ÷ ideal / most queued ÷ limit / live p99 ÷ before / live calls failed, %, and in
brackets the queue of the worst run. What is in italics is beyond the reach of clients, and is not
checked.
"""
        return [*text.splitlines(), ""]

    def _tables(self) -> list[str]:
        present = {cell.table for cell in self._cells.values()}
        return [table for table in TABLES if table in present]

    def _table(self, table: str) -> str:
        cells = [cell for cell in self._cells.values() if cell.table == table]
        rows: dict[str, list[str]] = {}
        for cell in cells:
            rows.setdefault(cell.case, []).append(self._shown(cell))
        columns = "| N=1 | N=8 | N=100 | N=1000 |"
        lines = [f"### {HEADINGS[table]}", "", f"| {columns}", "|---" * 5 + "|"]
        lines += [f"| {case} | {' | '.join(row)} |" for case, row in rows.items()]
        return "\n".join([*lines, ""])

    def _shown(self, cell: Cell) -> str:
        worst = max(result.queue for result in self._results[cell.name])
        text = f"{self._figures[cell.name]} ({worst:.2f})"
        if cell.case == "replicas join and leave":
            text += f", N={cell.scenario.replicas}"
        if not cell.is_within_reach:
            return f"*{text}*"
        return f"**{text}**" if cell.name in self.above else text

    def _above(self) -> list[str]:
        if not self.above:
            return []
        return [
            "### More than expected",
            "",
            "Chance is two standard deviations of what as few runs as those of before come to.",
            "",
            "| cell | came to | expected | chance | |",
            "|---|---|---|---|---|",
            *map(self._line, self.above),
            "",
        ]

    def _line(self, name: str) -> str:
        cell = self._cells[name]
        columns = [self._figures[name], cell.expected, cell.chance(self._results[name])]
        verdict = "" if self._may_be_chance(name) else "beyond chance"
        return f"| {name} | {' | '.join(map(str, columns))} | {verdict} |"
