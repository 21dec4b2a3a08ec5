"""Recoveries in virtual time with the product's controller; ``make recovery`` runs all of them."""

from __future__ import annotations

import pytest

from fusewire.parking._controller_settings import ControllerSettings
from tests.parking.recovery.cells import Cell, all_cells
from tests.parking.recovery.simulation import Scenario, Simulation

pytestmark = pytest.mark.timeout(300)

SHORT = [
    "3 exp, N=8",
    "3 bimodal, N=1",
    "3 lognormal, N=1000",
    "3 constant, N=100",
    "1.5 exp, N=1000",
    "1.5 lognormal, N=1",
    "10 exp, N=100",
    "10 lognormal, N=8",
    "4 at a time, 100/s, N=1000",
    "64 at a time, 1000/s, N=1",
    "gate, N=100",
    "gate, C/L 1.5, N=8",
    "replays twice as heavy, N=8",
    "10,000 messages, N=1000",
    "cold caches, N=1",
    "a second outage, N=8",
    "a second outage, N=1000",
    "half the capacity, N=100",
    "replicas join and leave, N=8",
    "replicas join and leave, N=100",
    "ten times too many replicas, N=100",
    "ten times too few replicas, N=1000",
    "5 calls measured, N=1",
    "reference twice too high, N=8",
    "reference half of what is right, N=1",
]
"""The cells that every run of the tests simulates, once each."""


@pytest.mark.parametrize("name", SHORT)
def test_a_recovery_comes_to_what_was_expected(name: str) -> None:
    cell = all_cells()[name]
    figures = cell.figures([cell.run(seed=1)])
    assert figures.within(cell.most), f"{figures}, expected {cell.expected}"


@pytest.mark.parametrize("number", [1, 8, 100, 1000])
def test_the_worst_of_twenty_recoveries_stays_within_the_limits(number: int) -> None:
    scenario = Scenario(replicas=number, backlog=5000)
    results = [Simulation(scenario, seed).run() for seed in range(20)]
    assert max(result.drain for result in results) <= 1.3
    assert max(result.queue for result in results) <= 0.5
    assert max(result.p99 for result in results) <= 1.5
    assert {result.failed for result in results} == {0.0}
    assert {result.opened for result in results} == {0.0}


@pytest.mark.parametrize("number", [1, 8, 100, 1000])
def test_a_recovery_of_which_nothing_was_measured_before_reaches_the_goal(number: int) -> None:
    result = Simulation(Scenario(replicas=number, backlog=10_000, measured=0), seed=1).run()
    assert result.drain <= 1.2
    assert result.queue <= 1
    assert (result.failed, result.opened) == (0, 0)


def test_all_cells_are_there() -> None:
    cells = all_cells().values()
    assert sum(cell.counts_for_the_goal for cell in cells) == 48
    assert len(cells) == 4 * (16 + 9 + 4 + 4 + 6)


def test_a_floor_of_one_call_per_replica_brings_the_server_down() -> None:
    """As it would be with windows of at least one: the simulation shows it, so it can judge."""
    settings = ControllerSettings(start=1e6, few=1000, floor=1000)
    result = Simulation(Scenario(replicas=1000, backlog=5000, settings=settings), 1).run()
    assert result.queue > 5
    assert result.failed > 0.5


def test_the_same_seed_gives_the_same_recovery() -> None:
    cell: Cell = all_cells()["1,000 messages, N=8"]
    assert cell.run(seed=7) == cell.run(seed=7)
    assert cell.run(seed=7) != cell.run(seed=8)
