"""What the processes of the recovery run write down: lines of JSON, each with its time.

The time is that of the monotonic clock, which all processes of a host share on Linux. Each line is
written at once, so that a killed process has lost none.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE")

Line = dict[str, Any]


class Record:
    """Writes the lines of this process; several processes in turn may add to one file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, at: float | None = None, **details: object) -> None:
        """Write a line: what happened, and when; by default now."""
        line = {"what": what, "at": time.monotonic() if at is None else at, **details}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    async def note_usage(self, every: float = 1.0) -> None:
        """Write how much CPU and memory this process uses, until cancelled.

        CPU is a share of one core, of all threads, and so at least that of the event loop. Memory
        is what is resident, in bytes.
        """
        cpu, wall = time.process_time(), time.monotonic()
        while True:
            await asyncio.sleep(every)
            cpu_now, now = time.process_time(), time.monotonic()
            self.write("usage", cpu=(cpu_now - cpu) / (now - wall), resident=_resident())
            cpu, wall = cpu_now, now


class Tail:
    """Reads what others write: each line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def lines(self) -> list[Line]:
        """Return the lines that are new since the last call; a line that is not whole waits."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self._read += len(whole) + 1
        return [json.loads(line) for line in whole.split(b"\n")]


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * _PAGE
