"""A forwarder that dies when RabbitMQ has confirmed an outcome, before it acknowledges the call.

``dying_forwarder.py ADDRESS QUEUE TARGET``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc.aio

from fusewire.breaker import BreakerRegistry
from fusewire.brokers.rabbitmq._subscription import RabbitMQDelivery
from fusewire.forwarding import ParkedCalls
from fusewire.interceptors import aio_interceptors
from tests.support.processes import KeptProcess


def start(address: str, queue: str, target: str) -> KeptProcess:
    """Start one."""
    program = [sys.executable, "-m", "tests.support.dying_forwarder", address, queue, target]
    return KeptProcess(program, cwd=Path(__file__).parents[2])


async def _die(self: RabbitMQDelivery) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(address: str, queue: str, target: str) -> None:
    """Forward until the first call is settled."""
    RabbitMQDelivery.done = _die  # what move() calls after the confirm
    registry = BreakerRegistry()
    interceptors = aio_interceptors(registry=registry)
    async with (
        ParkedCalls(address, queue=queue, registry=registry) as calls,
        grpc.aio.insecure_channel(target, interceptors=interceptors) as channel,
    ):
        await calls.run(channel)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
