"""The tests' side of the fork server: dozens of workers, each on a queue of its own."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.faults.kill_case import Notes
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from tests.faults.kill_case import KillCase

ROOT = Path(__file__).parents[2]


class ForkServer:
    """The process that forks workers, and the connection to it."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder = folder
        self._line = socket.socket(socket.AF_UNIX)
        path = folder / "fork_server"
        self._line.bind(str(path))
        self._line.listen()
        self._line.settimeout(60)
        self._process = KeptProcess(
            [sys.executable, "-m", "tests.faults.fork_server", str(path)], cwd=ROOT, log=log
        )
        connection, _ = self._line.accept()
        with connection:
            self._talk: IO[str] = connection.makefile("rw", encoding="utf-8")
        self._ended: dict[int, int] = {}

    def start(
        self, case: KillCase, *, url: str, target: str, armed: bool = False, timeout: float = 10.0
    ) -> int:
        """Start a worker for a case, and return its process id.

        Args:
            case: its queue and its kill point.
            url: where RabbitMQ is.
            target: where the payments server is.
            armed: whether it dies at the kill point.
            timeout: seconds that it gives RabbitMQ for one operation.
        """
        journal = self._folder / f"{case.queue}-{len(case.journals)}-{case.references[0]}"
        case.journals.append(Notes(journal))
        order = {
            "url": url,
            "queue": case.queue,
            "exchange": case.exchange,
            "target": target,
            "folder": str(self._folder),
            "journal": str(journal),
            "timeout": timeout,
            "concurrency": case.concurrency,
            "await": case.point.place if armed and case.point else "",
            "side": case.side,
            "when": case.when,
            "hit": case.hit,
        }
        pid: int = self._ask(order)
        self._ended.pop(pid, None)  # of an earlier worker: process ids are reused
        return pid

    def status(self, pid: int) -> int | None:
        """Return the exit status of a worker; None while it runs."""
        if pid not in self._ended:
            for gone, status in self._ask(None).items():
                self._ended[int(gone)] = status
        return self._ended.get(pid)

    def send(self, pid: int, signum: int) -> None:
        """Send a signal to a worker, unless it has ended."""
        if self.status(pid) is None:
            # The id is the worker's until it is asked for its status again, by this object only.
            os.kill(pid, signum)

    def close(self) -> None:
        """End it and all its workers."""
        self._process.kill()
        self._talk.close()
        self._line.close()

    def _ask(self, request: object) -> Any:
        self._talk.write(f"{json.dumps(request)}\n")
        self._talk.flush()
        return json.loads(self._talk.readline())
