"""The tests' side of the nursery: workers by the dozen, each on a queue of its own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.faults.trial import Notes
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from tests.faults.trial import Trial

ROOT = Path(__file__).parents[2]


class Nursery:
    """The process that forks workers, and the line to it."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder = folder
        self._line = socket.socket(socket.AF_UNIX)
        path = folder / "nursery"
        self._line.bind(str(path))
        self._line.listen()
        self._line.settimeout(60)
        self._process = KeptProcess(
            [sys.executable, "-m", "tests.faults.nursery", str(path)], cwd=ROOT, log=log
        )
        connection, _ = self._line.accept()
        with connection:
            self._talk: IO[str] = connection.makefile("rw", encoding="utf-8")
        self._ended: dict[int, int] = {}

    def start(
        self, trial: Trial, *, url: str, target: str, armed: bool = False, timeout: float = 10.0
    ) -> int:
        """Start a worker for a trial; return its process id.

        Args:
            trial: its queue and its kill point.
            url: where RabbitMQ is.
            target: where the payments server is.
            armed: whether it dies at the kill point.
            timeout: seconds that it gives RabbitMQ for one operation.
        """
        journal = self._folder / f"{trial.queue}-{len(trial.journals)}-{trial.references[0]}"
        trial.journals.append(Notes(journal))
        order = {
            "url": url,
            "queue": trial.queue,
            "exchange": trial.exchange,
            "target": target,
            "folder": str(self._folder),
            "journal": str(journal),
            "timeout": timeout,
            "concurrency": trial.concurrency,
            "await": trial.point.place if armed and trial.point else "",
            "side": trial.side,
            "when": trial.when,
            "hit": trial.hit,
        }
        pid: int = self._ask(order)
        self._ended.pop(pid, None)  # of a worker before it: the system gives a number again
        return pid

    def status(self, pid: int) -> int | None:
        """Return the exit status of a worker; None while it runs."""
        if pid not in self._ended:
            for gone, status in self._ask(None).items():
                self._ended[int(gone)] = status
        return self._ended.get(pid)

    def send(self, pid: int, signum: int) -> None:
        """Send a signal to a worker; to one that has ended, nothing."""
        with contextlib.suppress(ProcessLookupError):
            if self.status(pid) is None:
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
