"""Queue payments from a program without asyncio.

Start a server with ``python -m fusewire.demo.server --port 50051 --ledger ledger.db``, then run
``python examples/queue_payments_sync.py 127.0.0.1:50051``, and end it with Ctrl-C. Stop the server
and run it again: the payment is answered PENDING. It is made while the program runs and the server
is back, in this run or in another.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress

import grpc

from fusewire import BreakerSettings, ParkedCalls, Receipt, guard
from fusewire.demo.payments.v1.payments_pb2 import ChargeReply, ChargeRequest, Status
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"


def pending(_request: ChargeRequest, receipt: Receipt) -> ChargeReply:
    return ChargeReply(status=Status.STATUS_PENDING, operation_id=receipt.operation_id)


def main(target: str, store: str = "sqlite:///payments.db") -> None:
    with ParkedCalls(store, queue="charges") as calls:
        channel = guard(
            grpc.insecure_channel(target, options=[("grpc.max_reconnect_backoff_ms", 1000)]),
            BreakerSettings(failure_threshold=3, recovery_timeout=5),
            fallbacks={CHARGE: calls.park(reply=pending, idempotent=True)},
        )
        with channel, calls.forward_to(channel):
            request = ChargeRequest(account="alice", amount_cents=995, currency="EUR")
            reply = PaymentsStub(channel).Charge(request, timeout=2)
            with suppress(KeyboardInterrupt):
                print(f"{Status.Name(reply.status)} {reply.operation_id}", flush=True)
                # Not one endless wait: a Ctrl-C that comes just before it begins would not end it.
                while True:
                    time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
