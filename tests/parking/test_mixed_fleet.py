"""An upgrade, worker by worker, and a roll-back: workers of two releases share one queue."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message, Topology
from fusewire.parking._history import History
from tests.support.messages import until_depth
from tests.support.older_release import extract_older_release
from tests.support.processes import KeptProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.parking.conftest import Bench

ROOT = Path(__file__).parents[2]
LATER = 4.0
"""Seconds that a message is postponed by: more than any delay that the workers are made with."""
SCRIPT = ROOT / "tests" / "support" / "fleet_worker.py"


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a folder with the older release."""
    return extract_older_release(tmp_path_factory)


class Fleet:
    """Workers of any release on the queue of a bench."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.folder = folder
        self.sent = 0
        self._workers = contextlib.ExitStack()

    @property
    def handled(self) -> list[list[str]]:
        """Return number and worker of each message that was handled, and one line a start."""
        log = self.folder / "handled"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    async def start(self, release: Path, name: str, *, later: float = 0.0) -> KeptProcess:
        """Start a worker and wait until it consumes."""
        place = (self.bench.address, self.bench.queue, str(self.folder))
        program = [sys.executable, str(SCRIPT), *place, name, str(later)]
        worker = self._workers.enter_context(
            KeptProcess(
                program,
                env={**os.environ, "PYTHONPATH": str(release)},
                log=self.folder / f"{name}.log",
            )
        )
        line = [str(release / "fusewire" / "__init__.py"), name]
        await until(lambda: line in self.handled, f"{name} runs {release}", limit=60)
        return worker

    async def send(self, count: int) -> None:
        """Publish messages."""
        await self.bench.send(*(str(number) for number in range(self.sent, self.sent + count)))
        self.sent += count

    def down(self) -> None:
        """Take the dependency away."""
        (self.folder / "down").touch()

    def up(self) -> None:
        """Restore the dependency."""
        (self.folder / "down").unlink()

    async def parked(self, count: int) -> None:
        """Wait until so many messages stand in the lane, beside those that workers hold of it."""

        async def is_so() -> bool:
            return await self.bench.depth("parked.payments") >= count

        await until(is_so)

    async def settled(self) -> None:
        """Wait until all that was sent is handled."""
        expected = {str(number) for number in range(self.sent)}
        await until(
            lambda: expected <= {number for number, _ in self.handled}, "all handled", limit=60
        )

    def workers_of(self, first: int) -> set[str]:
        """Return which workers handled the messages from `first` on."""
        return {
            name for number, name in self.handled if number.isdecimal() and int(number) >= first
        }

    def close(self) -> None:
        self._workers.close()


@pytest.fixture
def fleet(bench: Bench, tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "fleet"
    folder.mkdir()
    fleet = Fleet(bench, folder)
    yield fleet
    fleet.close()
    for log in folder.glob("*.log"):
        print(f"{log.name}:\n{log.read_text()[-4000:]}")  # noqa: T201 (shown where a test failed)


async def test_workers_of_two_releases_share_a_queue_and_the_older_ones_go_on_alone(
    bench: Bench, fleet: Fleet, older: Path
) -> None:
    await fleet.start(older, "old")
    newer = await fleet.start(ROOT, "new")
    await fleet.send(60)  # some of them are delayed
    await fleet.settled()
    fleet.down()
    await fleet.send(60)
    await fleet.parked(30)
    fleet.up()
    await fleet.settled()
    assert fleet.workers_of(0) == {"old", "new"}

    fleet.down()
    await fleet.send(60)
    await fleet.parked(30)
    assert newer.stop() == 0
    await fleet.start(older, "rolled-back")
    before = fleet.sent - 60
    fleet.up()
    await fleet.send(20)
    await fleet.settled()

    assert fleet.workers_of(before) <= {"old", "rolled-back"}
    assert await bench.dead() == []  # nothing malformed, nothing given up
    await until_depth(bench.broker, f"{bench.queue}.parked.payments", 0)
    assert Counter(number for number, _ in fleet.handled if number.isdecimal()) == Counter(
        str(number) for number in range(fleet.sent)
    )


async def test_workers_of_a_newer_release_go_on_with_what_older_ones_left(
    bench: Bench, fleet: Fleet, older: Path
) -> None:
    old = await fleet.start(older, "old")
    fleet.down()
    await fleet.send(60)
    await fleet.parked(30)
    assert old.stop() == 0

    await fleet.start(ROOT, "new")
    fleet.up()
    await fleet.settled()

    assert fleet.workers_of(0) == {"new"}
    assert await bench.dead() == []


@pytest.mark.parametrize("first", ["old", "new"])
async def test_a_release_keeps_the_time_of_what_another_has_delayed(
    bench: Bench, fleet: Fleet, older: Path, first: str
) -> None:
    releases = {"old": older, "new": ROOT}
    second = "new" if first == "old" else "old"
    leaves = await fleet.start(releases[first], first, later=LATER)
    begun = time.time()
    await bench.send("later-1", "later-2")
    await until(lambda: len(list(fleet.folder.glob("tried later*"))) == 2)
    assert leaves.stop() == 0
    assert ["later-1", first] not in fleet.handled

    await fleet.start(releases[second], second)
    await until(lambda: len(fleet.handled) == 4, limit=60)

    assert sorted(fleet.handled[2:]) == [["later-1", second], ["later-2", second]]
    assert time.time() - begun > LATER
    assert await bench.dead() == []


HANDED_ON = """
from fusewire.brokers import Message
from fusewire.parking.record import read, strip

headers = {"fusewire-format": 1, "fusewire-times-parked": 1, "fusewire-moved-by": "00-1-2-01"}
record = read(Message(body=b"", headers=headers), operation_id="a")
stored = record.write(Message(body=b"", headers=headers)).headers
print(record.times_parked, strip(headers), stored["fusewire-moved-by"])
"""


def test_the_older_release_takes_the_name_of_a_move_for_the_publishers(older: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANDED_ON],
        env={**os.environ, "PYTHONPATH": str(older)},
        cwd=older,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "1 {'fusewire-moved-by': '00-1-2-01'} 00-1-2-01\n"


FACTS: tuple[dict[str, Any], ...] = (
    {"refusals": 3},
    {"doubtful_keys": "a/shop.Payments/Charge/1 a/shop.Payments/Charge/2"},
    {"moved_by": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
)
"""What a newer release writes into a message's history, and the older one does not know."""

SUSPECTED = {"lone": 2}
"""Such a message has the newer release to itself, for as long as nothing else comes: so it is one
of them only."""


async def park_with_facts(bench: Bench, numbers: range) -> None:
    """Store messages in the lane as the newer release parks them, the last one as a suspect."""
    now = time.time_ns() // 1_000_000
    topology = Topology(bench.queue, lanes=("payments",), delays=(0.05, 0.2))
    await bench.broker.prepare(topology)
    for number in numbers:
        facts = SUSPECTED if number == numbers[-1] else FACTS[number % len(FACTS)]
        history = History(
            operation_id=str(number),
            queue=bench.queue,
            dependency="payments",
            reason="busy",
            times_parked=1,
            first_parked_at_ms=now,
            parked_at_ms=now,
            **facts,
        )
        message = Message(
            body=str(number).encode(), message_id=str(number), routing_key=bench.queue
        )
        await bench.broker.publish(topology.parked("payments"), history.to_headers(message))


def facts_of(message: Message) -> dict[str, object]:
    """Return what the older release does not know, as it is stored."""
    names = {name for facts in (*FACTS, SUSPECTED) for name in facts}
    headers = {f"fusewire-{name.replace('_', '-')}": name for name in names}
    return {
        headers[header]: value for header, value in message.headers.items() if header in headers
    }


async def test_an_older_release_handles_and_passes_on_what_it_does_not_know(
    bench: Bench, fleet: Fleet, older: Path
) -> None:
    old = await fleet.start(older, "old")
    fleet.sent = 10
    await park_with_facts(bench, range(10))
    await fleet.settled()

    fleet.down()
    fleet.sent = 20
    await park_with_facts(bench, range(10, 20))

    async def waiting(*queues: str) -> list[Message]:
        return [one for queue in queues for one in await bench.broker.peek(queue, limit=100)]

    lane = f"{bench.queue}.parked.payments"

    async def moved() -> list[Message]:
        return [one for one in await waiting(lane) if one.headers.get("fusewire-outage-attempts")]

    async def all_of_them() -> list[Message]:
        # One that failed for its own reason comes back from its delay to the source queue.
        found = await waiting(lane, bench.queue)
        return found if len(found) == 10 else []

    await until(moved, "the older release has moved one", limit=60)
    assert old.stop() == 0
    for message in await until(all_of_them):
        number = int(message.body)
        assert facts_of(message) == (SUSPECTED if number == 19 else FACTS[number % len(FACTS)])

    await fleet.start(ROOT, "new")
    fleet.up()
    await fleet.settled()
    assert fleet.workers_of(0) == {"old", "new"}
    assert fleet.workers_of(10) == {"new"}
    assert await bench.dead() == []
