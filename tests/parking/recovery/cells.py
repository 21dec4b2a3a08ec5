"""The cells of the simulation: what is simulated, and what it has to come to."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, stdev
from typing import Any

from tests.parking.recovery import expected
from tests.parking.recovery.simulation import (
    Result,
    Scenario,
    Simulation,
    capacity,
    counted,
    fails,
    is_back,
    replicas,
    warming_up,
)

TOLERANCE = 1.1
"""A cell may come to this multiple of what is expected."""

ROUNDING = (0.005, 0.005, 0.005, 0.05)
"""Half of the last digit that the expected figures have."""


@dataclass(frozen=True)
class Figures:
    """What a cell comes to: shares, and percent of the live calls that failed."""

    drain: float
    queue: float
    p99: float
    failed: float

    def within(self, most: Figures) -> bool:
        return all(map(operator.le, dataclasses.astuple(self), dataclasses.astuple(most)))

    def __add__(self, other: Figures) -> Figures:
        return Figures(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))

    @property
    def reaches_the_goal(self) -> bool:
        return self.drain <= 1.2 and self.queue <= 1.0 and self.failed < 0.1

    def __str__(self) -> str:
        drain = f"{self.drain:.2f}" if self.drain < 4.9 else ">5"
        return f"{drain} / {self.queue:.2f} / {self.p99:.2f} / {self.failed:.1f}"


@dataclass(frozen=True)
class Cell:
    """One scenario with one number of replicas.

    Attributes:
        table: the table it belongs to.
        case: its row.
        scenario: what is simulated.
        expected: what it came to when the controller was designed.
        seeds: how many runs that was.
        most_seeds: how many runs are worth their time.
    """

    table: str
    case: str
    scenario: Scenario
    expected: Figures
    seeds: int
    most_seeds: int = 20

    @property
    def name(self) -> str:
        return f"{self.case}, N={self.scenario.replicas}"

    @property
    def most(self) -> Figures:
        """The figures that it may come to."""
        return Figures(
            *(
                TOLERANCE * (one + half)
                for one, half in zip(dataclasses.astuple(self.expected), ROUNDING, strict=True)
            )
        )

    @property
    def is_within_reach(self) -> bool:
        """Whether clients alone can get the backlog through: not where live traffic hardly can."""
        return self.scenario.ratio > 1.1 or self.scenario.kind != "collapses"

    @property
    def counts_for_the_goal(self) -> bool:
        return self.table == "matrix" and self.is_within_reach

    def run(self, seed: int) -> Result:
        return Simulation(self.scenario, seed).run()

    def chance(self, results: list[Result]) -> Figures:
        """Return by how much the expected figures may be lower by chance: they are of few runs.

        It is two standard deviations of what so few runs come to; about 1 in 40 is beyond that.
        """
        if len(results) == 1:
            return Figures(0.0, 0.0, 0.0, 0.0)
        of_a_mean = 2 / math.sqrt(self.seeds)
        return Figures(
            drain=of_a_mean * stdev(one.drain for one in results),
            queue=2 * stdev(one.queue for one in results),
            p99=of_a_mean * stdev(one.p99 for one in results),
            failed=100 * of_a_mean * stdev(one.failed for one in results),
        )

    def figures(self, results: list[Result]) -> Figures:
        """Return what some runs come to, as the expected figures were computed.

        The worst queue of many runs is worse than that of a few. So this is the worst of as many
        runs as were made then, on average over all choices of so many of the `results`.
        """
        return Figures(
            drain=fmean([one.drain for one in results]),
            queue=_worst_of(self.seeds, [one.queue for one in results]),
            p99=fmean([one.p99 for one in results]),
            failed=100 * fmean([one.failed for one in results]),
        )


def _worst_of(few: int, values: list[float]) -> float:
    """Return the expected worst of a `few` of the values."""
    few = min(few, len(values))
    worst, left = 0.0, 1.0
    # The largest value is among the few with this probability; if not, the next is the largest.
    for number, value in enumerate(sorted(values, reverse=True)):
        among = left * few / (len(values) - number)
        worst += among * value
        left -= among
        if left <= 0:
            break
    return worst


SERVERS: dict[str, dict[str, Any]] = {
    "1 at a time, 100/s": {"at_a_time": 1, "capacity": 100.0, "backlog": 5000},
    "4 at a time, 100/s": {"at_a_time": 4, "capacity": 100.0, "backlog": 5000},
    "2 at a time, 20/s": {"at_a_time": 2, "capacity": 20.0, "backlog": 1000, "deadline": 4.0},
    "64 at a time, 1000/s": {"at_a_time": 64},
    "refuses at its limit": {"kind": "refuses"},
    "refuses at its limit, C/L 1.1": {"kind": "refuses", "ratio": 1.1, "backlog": 20_000},
    "gate": {"kind": "gate", "distribution": "constant"},
    "gate, C/L 1.5": {"kind": "gate", "distribution": "constant", "ratio": 1.5},
    "replays twice as heavy": {"heavy": 2.0, "backlog": 20_000, "ideal": 60.0},
}

SCENARIOS: dict[str, dict[str, Any]] = {
    "cold caches": {"changes": [(0.0, warming_up(0.5, 60.0))], "ideal": 97.5},
    "a second outage": {"changes": [(20.0, fails), (50.0, is_back)], "ideal": 105.0},
    "half the capacity": {"changes": [(20.0, capacity(0.5)), (50.0, capacity(1.0))], "ideal": 97.5},
    "replicas join and leave": {},  # see `_joining`
}

KNOWLEDGE: dict[str, dict[str, Any]] = {
    "ten times too many replicas": {"known_replicas": 10.0},
    "ten times too few replicas": {"known_replicas": 0.1},
    "5 calls measured": {"measured": 5},
    "20 calls measured": {"measured": 20},
    "reference twice too high": {"known_reference": 2.0},
    "reference half of what is right": {"known_reference": 0.5},
}


def _joining(number: int) -> dict[str, Any]:
    """Twice as many replicas from 20 s on, a quarter of those from 40 s; known 5 s later."""
    changes = [(20.0, replicas(2 * number)), (25.0, counted)]
    changes += [(40.0, replicas(number // 2)), (45.0, counted)]
    return {"changes": changes}


def _scenario(table: str, case: str, number: int) -> Scenario:
    options: dict[str, Any]
    match table:
        case "matrix":
            ratio, distribution = case.split()
            backlog = 20_000 if ratio == "1.1" else 50_000
            options = {"ratio": float(ratio), "distribution": distribution, "backlog": backlog}
        case "servers":
            options = SERVERS[case]
        case "backlogs":
            options = {"backlog": int(case.removesuffix(" messages").replace(",", ""))}
        case "scenarios":
            options = SCENARIOS[case] or _joining(number)
        case _:
            options = KNOWLEDGE[case]
    return Scenario(replicas=number, **options)


TABLES = {
    "matrix": (expected.MATRIX, 2),
    "servers": (expected.SERVERS, 2),
    "backlogs": (expected.BACKLOGS, 3),
    "scenarios": (expected.SCENARIOS, 2),
    "knowledge": (expected.KNOWLEDGE, 3),
}
"""What each table is expected to come to, and as the mean of how many runs."""


def _cells(table: str) -> list[Cell]:
    text, seeds = TABLES[table]
    lines = text.strip().splitlines()
    cells = []
    for case, line in zip(lines[::2], lines[1::2], strict=True):
        numbers = expected.JOINING if case == "replicas join and leave" else expected.REPLICAS
        for number, result in zip(numbers, line.split(), strict=True):
            figures = Figures(*map(float, result.split("/")))
            cell = Cell(table, case, _scenario(table, case, number), figures, seeds)
            cells.append(_bounded(cell))
    return cells


def _bounded(cell: Cell) -> Cell:
    """Limit the runs of a cell that takes long."""
    if cell.scenario.backlog >= 100_000:
        return dataclasses.replace(cell, seeds=1, most_seeds=1 if "1,000," in cell.case else 20)
    if not cell.is_within_reach:
        return dataclasses.replace(cell, most_seeds=cell.seeds)
    return cell


@functools.cache
def all_cells() -> dict[str, Cell]:
    """Return all cells, by name."""
    return {cell.name: cell for cell in chain.from_iterable(map(_cells, TABLES))}
