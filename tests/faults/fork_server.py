"""Workers that start quickly and die at a named await: ``fork_server.py SOCKET``.

The program imports everything that a worker needs, watches the awaits of Fusewire's source, and
forks a worker for each request. Requests and answers are lines of JSON over a Unix socket. The
workers end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from fusewire.testing.faults import watch

ROOMS = ("fusewire.parking", "fusewire.brokers.rabbitmq")
"""The rooms in which a message is received, moved, replayed, settled and requeued."""
ELSEWHERE = {"auditing", "ordered", "single", "single_active_consumer"}
"""The modules of ROOMS that no move, replay or delay passes: pause mode, single consumers."""


def watched() -> list[str]:
    """Find the modules of these rooms, without importing them."""
    root = Path(__file__).parents[2]
    return [
        ".".join(path.relative_to(root).with_suffix("").parts)
        for room in ROOMS
        for path in sorted(root.joinpath(*room.split(".")).rglob("*.py"))
        if path.stem != "__init__" and path.stem.lstrip("_") not in ELSEWHERE
    ]


_FAILED = 70  # EX_SOFTWARE of sysexits.h


def fork(order: dict[str, Any]) -> int:
    """Start a worker and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = _FAILED
    try:
        worker = import_module("tests.faults.armed_worker")
        asyncio.run(worker.work(order))
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not run the parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def serve(path: str) -> None:
    """Answer requests until the socket closes: an order to fork, or null for who has ended."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        with line.makefile("rw", encoding="utf-8") as talk:
            for request in talk:
                order = json.loads(request)
                answer: object = fork(order) if order else ended()
                talk.write(f"{json.dumps(answer)}\n")
                talk.flush()


def ended() -> dict[int, int]:
    """Return the exit statuses of the workers that have ended since the last time."""
    gone = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            gone[pid] = os.waitstatus_to_exitcode(status)
    return gone


if __name__ == "__main__":
    watch(watched())
    import_module("tests.faults.armed_worker")  # before the forks, and after watch()
    serve(sys.argv[1])
