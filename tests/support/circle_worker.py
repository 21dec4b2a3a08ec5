"""A shop, or the forwarder of its calls, as a process that is killed at any moment.

``circle_worker.py ROLE ADDRESS QUEUE TARGET FOLDER``, until SIGTERM. The shop consumes QUEUE: each
order is charged for at TARGET, and entered into FOLDER's shop.db together with the memory of its
message. While the server is away, charges are parked in ``QUEUE.charges``, which the forwarder
forwards. Each reply that either sees is a line of FOLDER's file ``replies``: the key, and a digest
of the reply.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import sqlalchemy as sa

from fusewire import BreakerRegistry, BreakerSettings, ParkedCalls, ParkingConsumer, RetryPolicy
from fusewire.demo.payments.v1.payments_pb2 import STATUS_PENDING, ChargeReply, ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.idempotency._sql import Dialect
from fusewire.inbox import aio_once
from fusewire.interceptors import aio_interceptors
from tests.support.idempotent_places import PLACES, Database
from tests.support.payments import CHANNEL_OPTIONS, CHARGE
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).parents[2]

RETRY = RetryPolicy(delays=(0.1, 0.5), max_attempts=1000)  # a server may be away for long


def start(role: str, address: str, queue: str, target: str, folder: Path) -> KeptProcess:
    """Start one."""
    program = [sys.executable, "-m", "tests.support.circle_worker", role, address, queue]
    return KeptProcess([*program, target, str(folder)], cwd=_ROOT, log=folder / f"{role}.log")


class Replies(grpc.aio.UnaryUnaryClientInterceptor):
    """Writes down each reply of the server."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "replies", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        call = await continuation(client_call_details, request)
        if await call.code() is grpc.StatusCode.OK:
            reply = await call
            data = reply if isinstance(reply, bytes) else reply.SerializeToString()
            key = dict(client_call_details.metadata or ())["idempotency-key"]
            line = f"{key} {hashlib.sha256(data).hexdigest()}\n"
            os.write(self._file, line.encode())
        return call


def _pending(_: ChargeRequest, receipt: Any) -> ChargeReply:
    return ChargeReply(status=STATUS_PENDING, operation_id=receipt.operation_id)


async def main(role: str, address: str, queue: str, target: str, named: str) -> None:
    """Be the shop or the forwarder, until SIGTERM."""
    folder = Path(named)
    # Long enough that there is an outage, and short enough that there are many.
    registry = BreakerRegistry(BreakerSettings(failure_threshold=2, recovery_timeout=1.0))
    async with ParkedCalls(
        address, queue=f"{queue}.charges", registry=registry, retry=RETRY, park_timeout=30
    ) as calls:
        fallbacks = {CHARGE: calls.park(reply=_pending, idempotent=True)}
        interceptors = [
            *aio_interceptors(registry=registry, fallbacks=fallbacks),
            Replies(folder),
        ]
        async with grpc.aio.insecure_channel(
            target, interceptors=interceptors, options=CHANNEL_OPTIONS
        ) as channel:
            if role == "forwarder":
                await calls.run(channel)
            else:
                await _sell(address, queue, PaymentsStub(channel), folder, registry)


async def _sell(
    address: str, queue: str, payments: Any, folder: Path, registry: BreakerRegistry
) -> None:
    (place,) = (place for place in PLACES if place.name == "aio session on sqlite")
    store, close = await place.open(Database(Dialect.SQLITE, f"{folder}/shop.db", None))

    async def on_order(message: Any) -> None:
        order = message.body.decode()
        request = ChargeRequest(account="shop", amount_cents=1, currency="EUR", reference=order)
        metadata = (("idempotency-key", order),)
        reply = await payments.Charge(request, timeout=5, metadata=metadata)
        entry = sa.text("INSERT INTO ledger VALUES (:order)")
        await store.current().execute(entry, {"order": order})
        if reply.status == STATUS_PENDING:
            await store.current().execute(entry, {"order": f"pending {order}"})

    handler = await aio_once(store, on_order, consumer="orders", wait=10)
    async with ParkingConsumer(
        address, queue=queue, handler=handler, registry=registry, retry=RETRY, concurrency=4
    ) as consumer:
        await consumer.run()
    await close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
