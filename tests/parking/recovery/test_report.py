"""Which recoveries are reported as missed, and when the goal is reached."""

from __future__ import annotations

import pytest

from tests.parking.recovery.cells import Cell, all_cells
from tests.parking.recovery.report import GOAL, Report
from tests.parking.recovery.simulation import Result


def result(cell: Cell, *, queue: float | None = None, failed: float = 0.0) -> Result:
    """Return a run that comes to what is expected, but for what is given."""
    return Result(
        drain=cell.expected.drain,
        queue=cell.expected.queue if queue is None else queue,
        p99=cell.expected.p99,
        failed=failed,
        opened=0,
        refused=0,
        replaying=1,
    )


def reported(cell: Cell, *runs: Result) -> Report:
    return Report({cell.name: list(runs)}, {cell.name: cell})


@pytest.fixture
def cell() -> Cell:
    return all_cells()["3 exp, N=8"]


@pytest.fixture
def matrix() -> dict[str, Cell]:
    return {name: cell for name, cell in all_cells().items() if cell.counts_for_the_goal}


def test_a_cell_may_come_to_a_tenth_more_than_expected(cell: Cell) -> None:
    assert reported(cell, result(cell, queue=1.09 * cell.expected.queue)).is_good
    report = reported(cell, result(cell, queue=1.2 * cell.expected.queue))
    assert report.missed == [cell.name]
    assert not report.is_good
    assert f"**{report._figures[cell.name]}" in str(report)
    assert "beyond chance" in str(report)


def test_a_cell_whose_runs_differ_much_may_be_above_by_chance(cell: Cell) -> None:
    report = reported(cell, *(result(cell, queue=queue) for queue in (0.2, 0.3, 0.4, 0.6)))
    assert report.above == [cell.name]
    assert report.missed == []
    assert report.is_good
    report = reported(cell, *(result(cell, queue=queue) for queue in (0.5, 0.51, 0.5, 0.51)))
    assert report.missed == [cell.name]


def test_the_goal_has_to_be_reached_in_47_of_48_cells(matrix: dict[str, Cell]) -> None:
    results = {name: [result(cell, queue=0.1)] for name, cell in matrix.items()}
    one, another = list(matrix)[:2]
    assert len(Report(results, matrix).reached) == GOAL + 1
    for name, good in ((one, True), (another, False)):
        # Its own runs differ so much that it is no miss.
        results[name] = [result(matrix[name], failed=failed) for failed in (0.0, 0.0, 0.004)]
        report = Report(results, matrix)
        assert report.missed == []
        assert report.is_good == good
    assert "46 of 48 cells" in str(report)


def test_what_is_beyond_the_reach_of_clients_is_shown_and_not_checked() -> None:
    cell = all_cells()["1.1 exp, N=8"]
    report = reported(cell, result(cell, queue=50.0))
    assert report.is_good
    assert "| *1.23 / 50.00 /" in str(report)
