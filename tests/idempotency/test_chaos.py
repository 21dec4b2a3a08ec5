"""Four servers on one database, killed at random in the middle of calls, the database with them.

Two are sync and two asyncio; the keys of one operation are asked of all.

`FUSEWIRE_TEST_CHAOS` names the number of operations. The ledger has no constraint that would keep
an operation from standing in it twice.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.idempotency._sql import Dialect
from tests.support.idempotent_client import seen
from tests.support.idempotent_places import PLACES, make_database
from tests.support.idempotent_process import POINTS, ServerProcess
from tests.support.idempotent_server import KILL_METADATA, KILLED
from tests.support.postgres import PrivatePostgres, start_private_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.idempotent_places import Database

OPERATIONS = int(os.environ.get("FUSEWIRE_TEST_CHAOS", "2000"))
CLIENTS = 8
DEADLY = 0.012  # the share of calls that ask for their server's death
TWICE, AGAIN = 0.3, 0.1  # the shares of operations that are asked twice at once, and again later
RESTARTS = 4
_LIMIT = 300.0  # seconds for one operation

_SERVERS = [
    place
    for place in PLACES
    if place.name in ("psycopg", "session on postgresql", "aio psycopg", "asyncpg")
]


class Chaos:
    """The run, and what became of it.

    Attributes:
        replies: the replies of each operation.
        ends: how many calls ended with each status.
        kills: how many servers were asked to die.
        deaths: how often a server was found dead.
    """

    def __init__(self, servers: list[ServerProcess], postgres: PrivatePostgres) -> None:
        self._servers = servers
        self._postgres = postgres
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._done = 0
        self.replies: dict[str, set[bytes]] = defaultdict(set)
        self.ends: Counter[str] = Counter()
        self.kills = 0
        self.deaths = 0

    def run(self, operations: int) -> None:
        """Make the operations, while servers and database die and come back."""
        keepers = [
            threading.Thread(target=self._keep, args=[server]) for server in self._servers
        ] + [threading.Thread(target=self._restart, args=[operations])]
        for keeper in keepers:
            keeper.start()
        try:
            with ThreadPoolExecutor(CLIENTS) as threads:
                list(threads.map(self._make, (f"op-{number}" for number in range(operations))))
        finally:
            self._over.set()
            for keeper in keepers:
                keeper.join()

    def _make(self, operation: str) -> None:
        chance = random.Random(operation)
        deadline = time.monotonic() + _LIMIT
        times = 2 if chance.random() < TWICE else 1
        while not self._ask(operation, chance, times):
            assert time.monotonic() < deadline, f"{operation} was never made"
            time.sleep(chance.uniform(0.005, 0.05))
        if chance.random() < AGAIN:
            self._ask(operation, chance, 1)
        with self._lock:
            self._done += 1

    def _ask(self, operation: str, chance: random.Random, times: int) -> bool:
        calls = []
        for _ in range(times):
            metadata: tuple[tuple[str, str], ...] = ()
            if chance.random() < DEADLY:
                point = chance.choice([*POINTS, "in-commit"])
                metadata = ((KILL_METADATA, point),)
                with self._lock:
                    self.kills += 1
            server = chance.choice(self._servers)
            calls.append(server.client.start("ok", operation, metadata=metadata, timeout=10))
        made = False
        for answer in map(seen, calls):
            with self._lock:
                self.ends[f"{answer.code} {answer.word or ''}".strip()] += 1
                if answer.code == "OK":
                    self.replies[operation].add(answer.reply)
                    made = True
        return made

    def _keep(self, server: ServerProcess) -> None:
        while not self._over.wait(0.01):
            if not server.running:
                with self._lock:
                    self.deaths += 1
                with contextlib.suppress(AssertionError):  # it was killed while it started
                    server.start()

    def _restart(self, operations: int) -> None:
        for number in range(1, RESTARTS + 1):
            while self._done < operations * number / (RESTARTS + 1):
                if self._over.wait(0.05):
                    return
            self._postgres.crash()
            self._postgres.start()


def points_of(log: Path) -> dict[str, int]:
    """Count where servers have ended themselves, by what they have printed."""
    lines = log.read_text(errors="replace").splitlines()
    return dict(Counter(line.removeprefix(KILLED).strip() for line in lines if KILLED in line))


@pytest.fixture
def postgres() -> Iterator[PrivatePostgres]:
    """Provide a PostgreSQL that the test may end."""
    with contextlib.closing(start_private_postgres()) as started:
        yield started


@pytest.fixture
def database(postgres: PrivatePostgres, tmp_path: Path) -> Database:
    """Provide a database with its ledger."""
    return make_database(Dialect.POSTGRESQL, tmp_path, postgres.url)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_operation_is_made_once_whatever_dies(
    postgres: PrivatePostgres,
    database: Database,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "servers.log"
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(contextlib.closing(ServerProcess(place, database, log=log)))
            for place in _SERVERS
        ]
        chaos = Chaos(servers, postgres)
        begin = time.monotonic()
        chaos.run(OPERATIONS)
    entries: dict[Any, int] = dict(
        database.execute(f"SELECT operation, count(*) FROM {database.ledger} GROUP BY operation")  # noqa: S608 - ours
    )
    entries.pop("-", None)
    asked = [f"op-{number}" for number in range(OPERATIONS)]
    figures = {
        "operations": OPERATIONS,
        "seconds": round(time.monotonic() - begin),
        "servers": [place.name for place in _SERVERS],
        "asked to die": chaos.kills,
        "found dead": chaos.deaths,
        "killed at": points_of(log),
        "ends": dict(chaos.ends),
        "missing": [operation for operation in asked if not entries.get(operation)],
        "twice": [operation for operation, count in entries.items() if count > 1],
        "two replies": [name for name, replies in chaos.replies.items() if len(replies) > 1],
    }
    with capsys.disabled():
        print(f"\n{figures}")  # noqa: T201 - the figures of the run
    assert figures["missing"] == figures["twice"] == figures["two replies"] == []
