"""A replica that takes a parked message and never ends with it, for tests to kill.

``replica.py ADDRESS QUEUE LOG`` replays what waits in the lanes of QUEUE, one process at a time,
and writes a line for each message that it begins with, after a first one when it has begun to run.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fusewire.parking import ParkingConsumer, ReplayPolicy
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

_ROOT = Path(__file__).parents[2]


def start(address: str, queue: str, log: Path) -> KeptProcess:
    """Start one."""
    program = [sys.executable, "-m", "tests.support.replica", address, queue, str(log)]
    return KeptProcess(program, cwd=_ROOT)


async def run(address: str, queue: str, log: str) -> None:
    """Replay until killed."""
    line = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def handler(message: AbstractIncomingMessage) -> None:
        os.write(line, b"%s\n" % message.body)
        await asyncio.Event().wait()

    async with ParkingConsumer(
        address, queue=queue, handler=handler, replay=ReplayPolicy(scope="cluster")
    ) as consumer:
        asyncio.get_running_loop().call_soon(os.write, line, b"running\n")
        await consumer.run()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
