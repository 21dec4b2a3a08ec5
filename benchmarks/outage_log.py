"""The log of one outage, as docs/logs.md shows it: on SQLite, with a server that is killed.

Run it with ``python -m benchmarks.outage_log``. It takes three minutes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
from google.protobuf.message import DecodeError

from fusewire import BreakerRegistry, BreakerSettings, ParkingConsumer, RetryPolicy
from fusewire.brokers import Message, open_broker
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.interceptors import aio_interceptors
from tests.support.payments import CHANNEL_OPTIONS, CHARGE, PaymentsProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Broker, Station

OUTAGE = 150.0
"""Seconds for which the server is down."""

ORDERS_A_SECOND = 4
SETTINGS = BreakerSettings(failure_threshold=3, recovery_timeout=10)


async def send(broker: Broker, stopped: asyncio.Event) -> None:
    number = 0
    while not stopped.is_set():
        number += 1
        reference = f"order-{number}"
        order = ChargeRequest(account="bob", amount_cents=1, currency="EUR", reference=reference)
        unreadable = number == ORDERS_A_SECOND * 20
        body = b"no order" if unreadable else order.SerializeToString()
        await broker.publish("orders", Message(body=body, message_id=reference))
        await asyncio.sleep(1 / ORDERS_A_SECOND)


async def run(folder: Path) -> None:
    server = PaymentsProcess(folder)
    server.start()
    registry = BreakerRegistry(SETTINGS)
    interceptors = aio_interceptors(registry=registry, idempotent=[CHARGE])
    channel = grpc.aio.insecure_channel(
        server.target, interceptors=interceptors, options=CHANNEL_OPTIONS
    )
    async with channel, open_broker(f"sqlite:///{folder / 'queues.db'}") as broker:
        payments: Any = PaymentsStub(channel)

        async def on_order(message: AbstractIncomingMessage) -> None:
            await payments.Charge(ChargeRequest.FromString(message.body), timeout=2)

        await broker.create_queue("orders")
        async with ParkingConsumer(
            broker,
            queue="orders",
            handler=on_order,
            depends_on=CHARGE,
            lanes={"payments": [CHARGE]},
            registry=registry,
            retry=RetryPolicy(dead_on=DecodeError),
        ) as consumer:
            consuming = asyncio.create_task(consumer.run())
            stopped = asyncio.Event()
            sending = asyncio.create_task(send(broker, stopped))
            await asyncio.sleep(5)
            server.kill()
            await asyncio.sleep(OUTAGE)
            server.start()
            lane = consumer.topology.parked("payments")
            await until(lambda: is_empty(broker, lane), limit=60)
            await asyncio.sleep(10)  # until the log has seen that too
            stopped.set()
            await sending
            consumer.stop()
            await consuming
    server.close()


async def is_empty(broker: Broker, station: Station) -> bool:
    return await broker.depth(station) == 0


def main() -> None:
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stdout,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("fusewire").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


if __name__ == "__main__":
    main()
