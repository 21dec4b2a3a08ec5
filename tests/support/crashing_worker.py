"""A worker whose process does not survive the message ``poison``, for tests to start again.

``crashing_worker.py ADDRESS QUEUE LOG MODE`` consumes QUEUE, ten at a time, until nothing is left
in it, and writes a line to LOG for each message that its handler begins and one that it ends with.
It exits with 0 on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fusewire.parking import ParkingConsumer, RetryPolicy
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

_ROOT = Path(__file__).parents[2]

CRASHED = 139
"""Its exit code when the message has killed it, as a segmentation fault's is."""


def start(address: str, queue: str, log: Path, mode: str = "park") -> KeptProcess:
    """Start one."""
    program = [sys.executable, "-m", "tests.support.crashing_worker", address, queue, str(log)]
    return KeptProcess([*program, mode], cwd=_ROOT)


async def run(address: str, queue: str, log: str, mode: Literal["park", "pause"]) -> None:
    """Consume until SIGTERM, or until the message comes that is not survived."""
    line = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    together = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal together
        together += 1
        os.write(line, b"begins %s %d\n" % (message.body, together))
        await asyncio.sleep(0.05)  # so that others are in flight beside it
        if message.body == b"poison":
            os._exit(CRASHED)
        os.write(line, b"ends %s\n" % message.body)
        together -= 1

    async with ParkingConsumer(
        address,
        queue=queue,
        handler=handler,
        on_open=mode,
        concurrency=10,
        retry=RetryPolicy(delays=(0.05, 0.5)),
        shutdown_timeout=5,
    ) as consumer:
        await consumer.run()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))  # type: ignore[arg-type] # the mode is one of the two
