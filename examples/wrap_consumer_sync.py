"""Wrap a consumer whose handler is a plain function, until SIGTERM.

``python examples/wrap_consumer_sync.py 127.0.0.1:50051 amqp://guest:guest@127.0.0.1/ orders``
charges each message of the queue ``orders``, a serialized ``ChargeRequest``, and parks what
cannot be charged now.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import grpc

from fusewire import ParkingConsumer, guard
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub

if TYPE_CHECKING:
    import aio_pika

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"


def main(target: str, broker: str, queue: str) -> None:
    options = [("grpc.max_reconnect_backoff_ms", 1000)]
    with guard(grpc.insecure_channel(target, options=options), idempotent=[CHARGE]) as channel:
        payments = PaymentsStub(channel)

        def on_order(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            reply = payments.Charge(ChargeRequest.FromString(message.body), timeout=2)
            print(f"charged {reply.operation_id}", flush=True)

        ParkingConsumer(broker, queue=queue, handler=on_order, depends_on=CHARGE).run_sync()


if __name__ == "__main__":
    main(*sys.argv[1:])
