"""The server of `idempotent_server` as a process of its own, which a request may kill.

A request for ``kill:<point>`` ends it at once: before or after the effect, before or after the
commit that stores the answer.

This file is also the process's own program.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusewire.idempotency._sql import Dialect
from tests.support.idempotent_client import Client, Seen
from tests.support.idempotent_places import PLACES, Database
from tests.support.idempotent_server import Loop, Server, die
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.idempotent_places import Place

POINTS = ("before-effect", "after-effect", "before-commit", "after-commit")


class ServerProcess:
    """The server, seen from the test."""

    def __init__(
        self, place: Place, database: Database, *, log: Path | None = None, **settings: Any
    ) -> None:
        self._arguments = json.dumps([place.name, asdict(database), settings])
        self._log = log
        self.port = reserve_port()
        self._process: KeptProcess | None = None
        self.client = Client(self.port)
        self.start()

    def start(self) -> None:
        """Start it, or start it again on the same port, and wait until it answers."""
        self._process = KeptProcess(
            [
                sys.executable,
                "-m",
                "tests.support.idempotent_process",
                self._arguments,
                str(self.port),
            ],
            cwd=Path(__file__).parents[2],
            log=self._log,
        )
        until_sync(
            lambda: self.client.ask("idle", "-", key=None).code == "OK", "the server answers"
        )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.running

    def die(self, point: str, operation: str) -> Seen:
        """Have it die at a point of a call, wait for its end, and return what the caller saw."""
        seen = self.client.ask(f"kill:{point}", operation)
        process = self._process
        assert process is not None
        until_sync(lambda: not process.running, "the server's end")
        return seen

    def close(self) -> None:
        """End it."""
        self.client.close()
        if self._process is not None:
            self._process.kill()


def _die_at_commits(server: Server) -> None:
    begin_transaction = server.store.begin_transaction

    def dying(transaction: Any) -> Any:
        commit = transaction.commit

        def sync_commit(*last: Any) -> Any:
            server.script.die("before-commit")
            with _dying_soon(server):
                done = commit(*last)
            server.script.die("after-commit")
            return done

        async def aio_commit(*last: Any) -> Any:
            server.script.die("before-commit")
            with _dying_soon(server):
                done = await commit(*last)
            server.script.die("after-commit")
            return done

        transaction.commit = aio_commit if server.place.aio else sync_commit
        return transaction

    async def aio_begin(wait: float) -> Any:
        return dying(await begin_transaction(wait))

    def sync_begin(wait: float) -> Any:
        return dying(begin_transaction(wait))

    server.store.begin_transaction = aio_begin if server.place.aio else sync_begin


@contextlib.contextmanager
def _dying_soon(server: Server) -> Iterator[None]:
    """Die within the commit: somewhere between its sending and its answer, or just after."""
    committed = threading.Event()
    if server.script.kill_at == "in-commit":
        moment = random.uniform(0, 0.0005)
        threading.Timer(
            moment, lambda: die("just after the commit" if committed.is_set() else "in-commit")
        ).start()
    yield
    committed.set()


def _main() -> None:
    name, described, settings = json.loads(sys.argv[1])
    (place,) = (place for place in PLACES if place.name == name)
    database = Database(Dialect(described["kind"]), described["address"], described["schema"])
    server = Server(place, database, Loop(), port=int(sys.argv[2]), **settings)
    _die_at_commits(server)
    signal.pause()


if __name__ == "__main__":
    _main()
