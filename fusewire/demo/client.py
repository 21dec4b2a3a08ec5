"""The client process of the demo: it charges at a steady rate, and parks calls in an outage.

``python -m fusewire.demo.client TARGET QUEUE RATE``.
"""

from __future__ import annotations

import asyncio
import os
import sys

import grpc.aio

from fusewire.breaker import BreakerRegistry
from fusewire.demo._config import (
    CALL_TIMEOUT,
    CHANNEL_OPTIONS,
    CHARGE,
    LANE,
    SETTINGS,
    Client,
)
from fusewire.demo._load import Payer
from fusewire.demo._metrics import serving_metrics
from fusewire.demo._queues import delete_queues
from fusewire.demo._worker import ADDRESS_VARIABLE, Worker
from fusewire.demo.payments.v1.payments_pb2 import STATUS_PENDING, ChargeReply, ChargeRequest
from fusewire.forwarding import ParkedCalls, Receipt
from fusewire.interceptors import aio_interceptors


def pending(request: ChargeRequest, receipt: Receipt) -> ChargeReply:
    """Return the reply for a charge that is stored and will be made later."""
    del request
    return ChargeReply(status=STATUS_PENDING, operation_id=receipt.operation_id)


async def work(target: str, address: str, queue: str, rate: float) -> None:
    """Charge until the parent sends quiet, and forward until SIGTERM or the parent's end."""
    worker = Worker()
    registry = BreakerRegistry()
    registry.get(CHARGE, SETTINGS).add_listener(worker.report_circuit)
    async with ParkedCalls(
        address,
        queue=queue,
        registry=registry,
        lanes={LANE: [CHARGE]},
        shutdown_timeout=2 * CALL_TIMEOUT,
    ) as calls:
        calls.add_listener(worker.report_message)
        interceptors = aio_interceptors(
            SETTINGS,
            registry=registry,
            fallbacks={CHARGE: calls.park(reply=pending, idempotent=True)},
        )
        async with (
            grpc.aio.insecure_channel(
                target, interceptors=interceptors, options=CHANNEL_OPTIONS
            ) as channel,
            calls.forward_to(channel),  # ends before the channel, so that no replay is cut off
        ):
            with serving_metrics(registry, calls):
                worker.send("ready")
                await Payer(worker, Client.FUSEWIRE, channel).pay(rate)
                worker.send("quiet")
                await worker.stop.wait()
    if worker.orphaned:
        await delete_queues(address, queue)


def main() -> None:
    """Run the client with the arguments of the command line."""
    target, queue, rate = sys.argv[1:]
    asyncio.run(work(target, os.environ[ADDRESS_VARIABLE], queue, float(rate)))


if __name__ == "__main__":
    main()
