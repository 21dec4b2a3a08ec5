"""A worker that charges and then searches, while the circuit of the search is open or closed.

``charging_worker.py ADDRESS QUEUE TARGET LOG open|closed`` writes a line to LOG for each thing that
happens to a message: ``parked``, ``replayed``. It exits with 0 on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from fusewire.breaker import BreakerRegistry
from fusewire.interceptors import aio_interceptors
from fusewire.parking import MessageEvent, ParkingConsumer, RetryPolicy
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

_ROOT = Path(__file__).parents[2]

CHARGE = "/shop.Payments/Charge"
SEARCH = "search"


def start(address: str, queue: str, target: str, log: Path, search: str) -> KeptProcess:
    """Start one, with the circuit of the search ``open`` or ``closed``."""
    program = [sys.executable, "-m", "tests.support.charging_worker", address, queue, target]
    return KeptProcess([*program, str(log), search], cwd=_ROOT)


async def run(address: str, queue: str, target: str, log: str, search: str) -> None:
    """Consume and replay until SIGTERM."""
    line = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    registry = BreakerRegistry()
    if search == "open":
        registry.get(SEARCH).force_open()
    interceptors = aio_interceptors(registry=registry, idempotent={CHARGE})
    async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
        charge = channel.unary_unary(CHARGE)

        async def handler(_: AbstractIncomingMessage) -> None:
            await charge(b"alice", timeout=5)
            registry.get(SEARCH).acquire().success()

        def note(event: MessageEvent) -> None:
            os.write(line, f"{event.outcome}\n".encode())

        async with ParkingConsumer(
            address,
            queue=queue,
            handler=handler,
            lanes={SEARCH: [SEARCH, "payments"]},
            registry=registry,
            retry=RetryPolicy(delays=(0.05, 0.2)),
        ) as consumer:
            consumer.add_listener(note)
            await consumer.run()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
