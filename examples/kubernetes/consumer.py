"""A consumer for Kubernetes: it answers probes, shows metrics, and drains on SIGTERM.

pip install 'fusewire[demo,prometheus]' uvicorn
AMQP_URL=amqp://… PAYMENTS_TARGET=payments:50051 python consumer.py

The stubs are those of Fusewire's demo.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import grpc
import uvicorn

from fusewire import ParkingConsumer, aio_interceptors
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.telemetry import health, prometheus

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"
OPTIONS = [("grpc.max_reconnect_backoff_ms", 5000)]  # gRPC's own limit is two minutes


def serve(consumer: ParkingConsumer, port: int) -> None:
    """Answer probes and scrapes in a thread, so that they are answered if the event loop hangs."""
    prometheus.export(detail=True, durations=[CHARGE]).watch(consumer)
    metrics = prometheus.make_asgi_app()
    probes = health.make_asgi_app(health.Health(consumers=[consumer]))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        chosen = metrics if scope.get("path") == "/metrics" else probes
        await chosen(scope, receive, send)

    # To all addresses of the pod, because the kubelet asks from outside of it.
    config = uvicorn.Config(app, host="0.0.0.0", port=port, log_level="warning")  # noqa: S104
    threading.Thread(target=uvicorn.Server(config).run, daemon=True).start()


async def main() -> None:
    interceptors = aio_interceptors(idempotent=[CHARGE])
    target = os.environ["PAYMENTS_TARGET"]
    async with grpc.aio.insecure_channel(
        target, interceptors=interceptors, options=OPTIONS
    ) as channel:
        payments = PaymentsStub(channel)

        async def on_order(message: AbstractIncomingMessage) -> None:
            await payments.Charge(ChargeRequest.FromString(message.body), timeout=2)

        consumer = ParkingConsumer(
            os.environ["AMQP_URL"], queue=os.environ["QUEUE"], handler=on_order, depends_on=CHARGE
        )
        serve(consumer, int(os.environ["HTTP_PORT"]))
        async with consumer:
            await consumer.run()  # until SIGTERM, and then until the last handlers have ended


asyncio.run(main())
