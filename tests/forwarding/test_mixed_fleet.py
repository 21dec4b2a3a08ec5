"""Calls that one release has parked are made by another, and by both side by side."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc
import pytest

from fusewire.brokers import open_broker
from tests.support.older_release import ROOT, extract_older_release
from tests.support.processes import KeptProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.forwarding.conftest import PaymentsServer

SCRIPT = ROOT / "tests" / "support" / "fleet_caller.py"
METHODS = ("Charge", "Give")


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a folder with the older release."""
    return extract_older_release(tmp_path_factory)


class Fleet:
    """Callers of any release, and forwarders of what they parked."""

    def __init__(
        self, address: str, queue: str, server: PaymentsServer, older: Path, folder: Path
    ) -> None:
        self._releases = {"old": older, "new": ROOT}
        self._place = (address, queue, server.target, str(folder))
        self._folder = folder
        self._address, self._queue = address, queue
        self._processes = ExitStack()
        self.parked: list[str] = []

    async def park(self, release: str, count: int) -> None:
        """Have a program of the release park as many calls of each method."""
        first = len(self.parked) // len(METHODS)
        caller = self._start(release, str(first), str(count))
        await until(lambda: not caller.running, f"{release} has parked", limit=60)
        assert caller.wait(1) == 0
        numbers = range(first, first + count)
        self.parked += [f"{method}-{number}" for method in METHODS for number in numbers]
        assert {line.split()[-1] for line in self._lines("tea pending")} == set(self.parked)

    async def forward(self, release: str) -> KeptProcess:
        """Start a forwarder of the release."""
        forwarder = self._start(release)
        line = f"{self._releases[release] / 'fusewire' / '__init__.py'} {release}"
        await until(lambda: line in self._lines(""), f"{release} forwards", limit=60)
        return forwarder

    async def dead(self) -> int:
        """Count the dead calls."""
        async with open_broker(self._address) as broker:
            return await broker.depth(f"{self._queue}.dead")

    def _start(self, release: str, *arguments: str) -> KeptProcess:
        return self._processes.enter_context(
            KeptProcess(
                [sys.executable, str(SCRIPT), *self._place, release, *arguments],
                env={**os.environ, "PYTHONPATH": str(self._releases[release])},
                log=self._folder / f"{release}.log",
            )
        )

    def _lines(self, beginning: str) -> list[str]:
        log = self._folder / "pending"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if line.startswith(beginning)]

    def close(self) -> None:
        self._processes.close()
        for log in self._folder.glob("*.log"):
            print(f"{log.name}:\n{log.read_text()[-4000:]}")  # noqa: T201 (shown where a test failed)


@pytest.fixture
def queue(queue_name: str, forget_queue: Callable[[str], None]) -> str:
    for suffix in ("delay.50", "delay.200"):
        forget_queue(f"{queue_name}.{suffix}")
    return queue_name


@pytest.fixture
def fleet(
    address: str, queue: str, server: PaymentsServer, older: Path, tmp_path: Path
) -> Iterator[Fleet]:
    folder = tmp_path / "fleet"
    folder.mkdir()
    fleet = Fleet(address, queue, server, older, folder)
    yield fleet
    fleet.close()


@pytest.mark.parametrize(("parks", "forwards"), [("old", "new"), ("new", "old")])
async def test_calls_that_one_release_has_parked_are_made_by_the_other(
    fleet: Fleet, server: PaymentsServer, parks: str, forwards: str
) -> None:
    await fleet.park(parks, 10)
    assert server.seen == []
    await fleet.forward(forwards)
    await until(lambda: set(server.effects) == set(fleet.parked), "all made", limit=60)
    assert Counter(key for key, _ in server.seen) == Counter(fleet.parked)
    tenants = {metadata.get("tenant") for key, metadata in server.seen if "Charge" in key}
    assert tenants == {"blue"}
    assert await fleet.dead() == 0


async def test_two_releases_make_the_calls_of_both_through_an_outage(
    fleet: Fleet, server: PaymentsServer
) -> None:
    for release in ("old", "new"):
        await fleet.park(release, 20)
    failed = Counter[str]()

    def fail_charges(key: str) -> grpc.StatusCode | None:
        if key.startswith("Give"):  # at most once: what fails is dead, in every release
            return None
        failed[key] += 1
        return grpc.StatusCode.UNAVAILABLE

    server.answer = fail_charges
    # Both stay to the end: if the older release stops, what it has not tried of the calls to be
    # made at most once comes back as redelivered, and is dead as ambiguous.
    for release in ("old", "new"):
        await fleet.forward(release)
    await until(lambda: len(failed) >= 4, "several have failed", limit=60)
    server.answer = lambda _: None
    await until(lambda: set(server.effects) == set(fleet.parked), "all made", limit=60)
    gifts = Counter(key for key, _ in server.seen if key.startswith("Give"))
    assert gifts == Counter(key for key in fleet.parked if key.startswith("Give"))
    assert await fleet.dead() == 0
