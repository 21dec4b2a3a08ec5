"""The orders process of the demo: a consumer charges for each order that comes in.

``python -m fusewire.demo.orders TARGET QUEUE RATE``. Publisher and consumer share a process
to save one; they share nothing else.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import grpc.aio

from fusewire.breaker import BreakerRegistry
from fusewire.brokers import Message, open_broker
from fusewire.demo._config import (
    ACCOUNTS,
    CALL_TIMEOUT,
    CHANNEL_OPTIONS,
    CHARGE,
    LANE,
    ORDER,
    SETTINGS,
)
from fusewire.demo._metrics import serving_metrics
from fusewire.demo._queues import delete_queues
from fusewire.demo._worker import ADDRESS_VARIABLE, Worker
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.errors import BrokerError
from fusewire.interceptors import aio_interceptors
from fusewire.parking import ParkingConsumer

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

_PRICE = 1999  # cents
_RETRY = 0.2  # seconds between tries to publish an order


async def work(target: str, address: str, queue: str, rate: float) -> None:
    """Publish and consume orders until SIGTERM or the parent's end."""
    worker = Worker()
    registry = BreakerRegistry()
    registry.get(CHARGE, SETTINGS).add_listener(worker.report_circuit)
    # Declared idempotent: the call carries a key derived from the order's id, on every attempt.
    interceptors = aio_interceptors(SETTINGS, registry=registry, idempotent=[CHARGE])
    async with (
        grpc.aio.insecure_channel(
            target, interceptors=interceptors, options=CHANNEL_OPTIONS
        ) as channel,
        open_broker(address) as broker,
    ):
        payments = PaymentsStub(channel)

        async def on_order(message: AbstractIncomingMessage) -> None:
            order = message.body.decode()
            number = int(order.removeprefix(ORDER))
            request = ChargeRequest(
                account=ACCOUNTS[number % len(ACCOUNTS)],
                amount_cents=_PRICE,
                currency="EUR",
                reference=order,
            )
            await payments.Charge(request, timeout=CALL_TIMEOUT)

        async def publish(number: int) -> None:
            order = f"{ORDER}{number}"
            while not worker.orphaned:
                try:
                    message = Message(body=order.encode(), message_id=order, routing_key=queue)
                    await broker.publish(queue, message)
                except BrokerError:  # published again under the same id
                    await asyncio.sleep(_RETRY)
                else:
                    worker.send("published", operation=order)
                    return

        consumer = ParkingConsumer(
            address,
            queue=queue,
            handler=on_order,
            depends_on=CHARGE,
            lanes={LANE: [CHARGE]},
            registry=registry,
            shutdown_timeout=2 * CALL_TIMEOUT,
        )
        consumer.add_listener(worker.report_message)
        async with consumer:
            consuming = asyncio.create_task(consumer.run(handle_signals=False))
            with serving_metrics(registry, consumer):
                worker.send("ready")
                await worker.steadily(rate, publish)
                worker.send("quiet")
                await worker.stop.wait()
            consumer.stop()
            await consuming
        if worker.orphaned:
            await delete_queues(address, queue)


def main() -> None:
    """Run publisher and consumer with the arguments of the command line."""
    target, queue, rate = sys.argv[1:]
    asyncio.run(work(target, os.environ[ADDRESS_VARIABLE], queue, float(rate)))


if __name__ == "__main__":
    main()
