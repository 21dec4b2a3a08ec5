"""A gRPC service for Kubernetes that calls another one, and parks payments while that is down.

pip install 'fusewire[demo,health]'
AMQP_URL=amqp://… PAYMENTS_TARGET=payments:50051 GRPC_PORT=50051 python checkout.py

The stubs are those of Fusewire's demo.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1.health import aio as grpc_health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from fusewire import ParkedCalls, aio_interceptors
from fusewire.demo.payments.v1.payments_pb2 import STATUS_PENDING, ChargeReply, ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import (
    PaymentsServicer,
    PaymentsStub,
    add_PaymentsServicer_to_server,
)
from fusewire.telemetry.health import Health, aio_report_status

if TYPE_CHECKING:
    from fusewire import Receipt

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"
OPTIONS = [("grpc.max_reconnect_backoff_ms", 5000)]  # gRPC's own limit is two minutes
SHUTDOWN_TIMEOUT = 30.0  # seconds for calls that have begun; ParkedCalls takes as long at most


class Checkout(PaymentsServicer):
    """Passes payments on, and answers UNIMPLEMENTED to all else."""

    def __init__(self, payments: Any) -> None:
        self._payments = payments

    async def Charge(self, request: ChargeRequest, _: Any) -> ChargeReply:  # noqa: N802 - see the .proto
        """Charge an account, now or later."""
        reply: ChargeReply = await self._payments.Charge(request, timeout=2)
        return reply


def pending(_: ChargeRequest, receipt: Receipt) -> ChargeReply:
    return ChargeReply(status=STATUS_PENDING, operation_id=receipt.operation_id)


async def serve(checkout: Checkout, health: Health) -> None:
    """Serve until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    server, servicer = grpc.aio.server(), grpc_health.HealthServicer()
    add_HealthServicer_to_server(servicer, server)
    add_PaymentsServicer_to_server(checkout, server)
    server.add_insecure_port(f"0.0.0.0:{os.environ['GRPC_PORT']}")
    async with (
        aio_report_status(health.readiness, servicer, service="checkout.readiness"),
        aio_report_status(health.liveness, servicer, service="checkout.liveness"),
    ):
        await server.start()
        await stopping.wait()
    await server.stop(SHUTDOWN_TIMEOUT)


async def main() -> None:
    async with ParkedCalls(os.environ["AMQP_URL"], queue=os.environ["QUEUE"]) as calls:
        interceptors = aio_interceptors(
            fallbacks={CHARGE: calls.park(reply=pending, idempotent=True)}
        )
        target = os.environ["PAYMENTS_TARGET"]
        async with grpc.aio.insecure_channel(
            target, interceptors=interceptors, options=OPTIONS
        ) as channel:
            calls.forward_to(channel)
            # Nothing in ready_needs: while payments are down, this service parks them.
            checkout = Checkout(PaymentsStub(channel))  # type: ignore[abstract] # see its docstring
            await serve(checkout, Health(consumers=[calls]))


asyncio.run(main())
