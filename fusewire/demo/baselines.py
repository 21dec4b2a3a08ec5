"""The baselines of the demo: the client's load without Fusewire, by two clients of plain gRPC.

``python -m fusewire.demo.baselines TARGET RATE``. One is bare, and one has gRPC's own retry policy.
Both have the deadline and the reconnecting of the client with Fusewire.
"""

from __future__ import annotations

import asyncio
import sys

import grpc.aio

from fusewire.demo._config import CHANNEL_OPTIONS, RETRY_OPTIONS, Client
from fusewire.demo._load import Payer
from fusewire.demo._worker import Worker


async def work(target: str, rate: float) -> None:
    """Charge until the parent sends quiet, and wait for SIGTERM or the parent's end."""
    worker = Worker()
    async with (
        grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as bare,
        grpc.aio.insecure_channel(target, options=(*CHANNEL_OPTIONS, *RETRY_OPTIONS)) as retrying,
    ):
        worker.send("ready")
        async with asyncio.TaskGroup() as group:
            for client, channel in ((Client.BARE, bare), (Client.RETRYING, retrying)):
                group.create_task(Payer(worker, client, channel).pay(rate))
        worker.send("quiet")
        await worker.stop.wait()


def main() -> None:
    """Run the baselines with the arguments of the command line."""
    target, rate = sys.argv[1:]
    asyncio.run(work(target, float(rate)))


if __name__ == "__main__":
    main()
