"""A replica of the recovery run: a consumer with the defaults, whose handler makes one call.

It imports of Fusewire only what an earlier release has too, so that it can run with that: the
package that comes first on Python's path is the one that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

import fusewire
from benchmarks.recovery_record import Record
from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitOpenError, StateChanged
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.interceptors import aio_interceptors
from fusewire.parking import ParkingConsumer, ReplayPolicy

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.breaker import Event
    from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsAsyncStub
    from fusewire.parking import MessageEvent

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"
DEADLINE = 2.0  # seconds
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class Replica:
    """Handles messages, and writes down what happens to them and to its circuit."""

    def __init__(self, record: Record, payments: PaymentsAsyncStub) -> None:
        self._record = record
        self._payments = payments

    async def handle(self, message: AbstractIncomingMessage) -> None:
        """Charge for a message."""
        began = time.monotonic()
        request = ChargeRequest(
            account="replica", amount_cents=1, currency="EUR", reference=message.body.decode()
        )
        code = "OK"
        try:
            await self._payments.Charge(request, timeout=DEADLINE)
        except CircuitOpenError:
            code = "REJECTED"
            raise
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise
        finally:
            self._record.write(
                "call", began, took=time.monotonic() - began, code=code, id=request.reference
            )

    def on_message(self, event: MessageEvent) -> None:
        """Write down what became of a message."""
        self._record.write("settled", id=event.operation_id, outcome=str(event.outcome))

    def on_circuit(self, event: Event) -> None:
        """Write down that the circuit changed."""
        if isinstance(event, StateChanged):
            self._record.write("circuit", state=str(event.new), why=str(event.reason))


async def run(arguments: argparse.Namespace) -> None:
    """Consume and replay until SIGTERM."""
    record = Record(arguments.record)
    record.write("package", path=fusewire.__file__)
    settings = (
        BreakerSettings(recovery_timeout=arguments.open_time) if arguments.open_time else None
    )
    registry = BreakerRegistry(settings)
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(
        arguments.target, interceptors=interceptors, options=CHANNEL_OPTIONS
    ) as channel:
        replica = Replica(record, PaymentsStub(channel))
        registry.get(CHARGE).add_listener(replica.on_circuit)
        consumer = ParkingConsumer(
            arguments.address,
            queue=arguments.queue,
            handler=replica.handle,
            depends_on=CHARGE,
            lanes={arguments.lane: [CHARGE]},
            registry=registry,
            replay=ReplayPolicy(scope=arguments.scope),
            shutdown_timeout=5,
        )
        consumer.add_listener(replica.on_message)
        async with consumer:
            usage = asyncio.create_task(record.note_usage())
            record.write("ready")
            await consumer.run()
            usage.cancel()


def main() -> None:
    """Run a replica as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--address", required=True, help="of RabbitMQ")
    parser.add_argument("--queue", required=True)
    parser.add_argument("--lane", required=True)
    parser.add_argument("--target", required=True, help="of the payments server")
    parser.add_argument("--scope", choices=("replica", "cluster"), default="replica")
    parser.add_argument("--after", type=Path, help="a file: wait until it is there")
    parser.add_argument("--open-time", type=float, help="seconds; the breaker's default without")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    arguments = parser.parse_args()
    while arguments.after is not None and not arguments.after.exists():
        time.sleep(0.1)
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
