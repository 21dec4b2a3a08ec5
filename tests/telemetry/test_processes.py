"""Several processes behind one scrape: nothing that is shown falls, and sums are what was called.

Each of these tests runs its processes with ``PROMETHEUS_MULTIPROC_DIR`` set, and reads what they
write as one process that is scraped does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from tests.support.scraping import Scrape, scrape
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CALLS = "circuit_breaker_calls_total"


class Worker:
    """A process that counts.

    Attributes:
        seen: what it has counted, as it said last.
    """

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.counting_worker", str(threads)],
            cwd=ROOT,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def ask(self) -> dict[str, dict[str, int]]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> dict[str, dict[str, int]]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        last = self._answer()
        assert self._process.wait(30) == 0
        return last

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def _answer(self) -> dict[str, dict[str, int]]:
        assert self._process.stdout is not None
        found: dict[str, dict[str, int]] = json.loads(self._process.stdout.readline())
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def workers(folder: Path) -> Iterator[list[Worker]]:
    made = [Worker(folder, threads=16) for _ in range(3)]
    yield made
    for worker in made:
        worker.kill()


def scraped(folder: Path) -> Scrape:
    to = CollectorRegistry()
    MultiProcessCollector(to, str(folder))
    return scrape(to)


def calls(shown: Scrape) -> dict[tuple[str, str], float]:
    return {
        (labels["circuit_name"], labels["result"]): value
        for name, labels, value in shown
        if name == CALLS
    }


def total(*counts: dict[str, dict[str, int]]) -> dict[tuple[str, str], float]:
    return {
        (circuit, result): sum(each[circuit][result] for each in counts)
        for circuit in ("steady", "flapping")
        for result in ("success", "failure", "rejected")
    }


def counters(shown: Scrape) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (name, frozenset(labels.items())): value
        for name, labels, value in shown
        if name.endswith(("_total", "_bucket", "_count", "_sum"))
    }


def test_sums_over_processes_never_fall_and_are_exact_at_the_end(
    folder: Path, workers: list[Worker]
) -> None:
    for worker in workers:
        worker.ask()
    last: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def scrape_on() -> bool:
        shown = counters(scraped(folder))
        for series, value in last.items():
            assert shown[series] >= value, series
        last.update(shown)
        shown_calls = calls(scraped(folder))
        return min(shown_calls["flapping", each] for each in ("failure", "rejected")) > 100

    until_sync(scrape_on)
    counted = total(*[worker.end() for worker in workers])
    shown = scraped(folder)
    assert calls(shown) == counted
    duration = "circuit_breaker_call_duration_seconds"
    for result in ("success", "failure"):  # of the other, late results have durations too
        labels = {"circuit_name": "steady", "result": result}
        assert shown(f"{duration}_count", **labels) == counted["steady", result]
        assert shown(f"{duration}_bucket", **labels, le="+Inf") == counted["steady", result]


def test_a_killed_worker_loses_the_last_second_at_most(folder: Path, workers: list[Worker]) -> None:
    first, *others = workers
    asked = first.ask()
    # What it has counted by now is in its file when it writes next, in a second at most.
    until_sync(lambda: _of_process(folder, first.pid, "success") >= asked["steady"]["success"])
    first.kill()
    shown = _of_process(folder, first.pid, "success")
    assert shown >= asked["steady"]["success"]
    counted = total(*[worker.end() for worker in others])
    assert calls(scraped(folder))["steady", "success"] == counted["steady", "success"] + shown


def _of_process(folder: Path, pid: int, result: str) -> float:
    """Return the successes of the circuit ``steady`` that one process has written."""
    files = [str(file) for file in folder.glob(f"counter_{pid}.db")]
    families = MultiProcessCollector.merge(files)
    for family in families:
        for sample in family.samples:
            labels = {"circuit_name": "steady", "result": result}
            if sample.name == CALLS and sample.labels == labels:
                return float(sample.value)
    return 0.0
