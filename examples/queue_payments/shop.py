"""The shop: takes orders over HTTP, and charges for them over gRPC, or later.

``uvicorn shop:app`` with ``PAYMENTS``, the address of the payments server, ``BROKER``, where
charges wait while that server is down, and ``ORDERS``, a file for the shop's own table.

Three rules make it whole. An order is committed, with a key of its own, before its charge is asked
for: the outcome may come before the answer. A final outcome is written whatever the order's status
is, because it may come twice, and a notice changes nothing after it. And an order that nobody knows
the end of is asked for again, under the same key: the server charges once.
"""

from __future__ import annotations

import os
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiosqlite
import grpc
import grpc.aio
from fastapi import FastAPI
from pydantic import BaseModel, Field

from fusewire import BreakerSettings, ParkedCalls, ParkPolicy, Receipt, aio_interceptors
from fusewire.demo.payments.v1.payments_pb2 import ChargeReply, ChargeRequest, Status
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.forwarding import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"


class Order(BaseModel):
    """What a customer wants."""

    amount_cents: int = Field(gt=0)


class Shop:
    """Orders, and what became of them.

    ``ASKED`` becomes ``CHARGED`` or ``DECLINED``, or ``PENDING`` and then one of the two, or a
    person decides.
    """

    def __init__(self, database: aiosqlite.Connection) -> None:
        self._database = database
        self._charge: grpc.aio.UnaryUnaryMultiCallable[ChargeRequest, ChargeReply]

    @asynccontextmanager
    async def open(self, payments: str, broker: str) -> AsyncIterator[None]:
        """Sell in the block."""
        await self._execute(
            "CREATE TABLE IF NOT EXISTS orders (key TEXT PRIMARY KEY, amount_cents INTEGER, "
            "status TEXT)"
        )
        charges = ParkPolicy(response=ChargeReply, reply=pending, idempotent=True)
        async with ParkedCalls(
            broker, queue="charges", methods={CHARGE: charges}, on_outcome=self.settle
        ) as calls:
            interceptors = aio_interceptors(
                BreakerSettings(failure_threshold=2, recovery_timeout=1),
                fallbacks=calls.fallbacks(),
            )
            async with grpc.aio.insecure_channel(payments, interceptors=interceptors) as channel:
                self._charge = PaymentsStub(channel).Charge
                await self.ask_again()
                yield

    async def order(self, amount_cents: int) -> str:
        """Take an order, and return its key."""
        key = f"order-{uuid.uuid4().hex}"
        await self._execute("INSERT INTO orders VALUES (?, ?, 'ASKED')", key, amount_cents)
        await self.charge(key, amount_cents)
        return key

    async def charge(self, key: str, amount_cents: int) -> None:
        """Charge for an order that is committed, now or later."""
        request = ChargeRequest(
            account="alice", amount_cents=amount_cents, currency="EUR", reference=key
        )
        try:
            reply = await self._charge(request, timeout=2, metadata=(("idempotency-key", key),))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                return  # neither made nor stored, as far as is known: it stays ASKED
            status = "DECLINED"
        else:
            status = Status.Name(reply.status).removeprefix("STATUS_")
        await self._execute(
            "UPDATE orders SET status = ? WHERE key = ? AND status = 'ASKED'", status, key
        )

    async def settle(self, outcome: Outcome) -> None:
        """Write down what became of a charge that was stored."""
        key = outcome.operation_id
        if outcome.final:
            status = "CHARGED" if outcome.kind is OutcomeKind.OK else "DECLINED"
            await self._execute("UPDATE orders SET status = ? WHERE key = ?", status, key)
        else:
            await self._execute(
                "UPDATE orders SET status = 'A PERSON DECIDES' WHERE key = ? "
                "AND status IN ('ASKED', 'PENDING')",
                key,
            )

    async def ask_again(self) -> None:
        """Charge for the orders that an earlier process, or an error, has left in between."""
        for key, amount_cents in await self._rows(
            "SELECT key, amount_cents FROM orders WHERE status = 'ASKED'"
        ):
            await self.charge(key, amount_cents)

    async def orders(self) -> list[dict[str, object]]:
        """Return all orders, in turn."""
        rows = await self._rows("SELECT key, amount_cents, status FROM orders ORDER BY rowid")
        return [
            {"key": key, "amount_cents": cents, "status": status} for key, cents, status in rows
        ]

    async def _rows(self, query: str) -> list[Any]:
        return [tuple(row) for row in await self._database.execute_fetchall(query)]

    async def _execute(self, sql: str, *values: object) -> None:
        await self._database.execute(sql, values)
        await self._database.commit()


def pending(request: ChargeRequest, receipt: Receipt) -> ChargeReply:
    """Answer in place of the server: the charge is stored, and will be made."""
    del request
    return ChargeReply(status=Status.STATUS_PENDING, operation_id=receipt.operation_id)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the shop while the application runs."""
    async with aiosqlite.connect(os.environ["ORDERS"]) as database:
        shop = app.state.shop = Shop(database)
        async with shop.open(os.environ["PAYMENTS"], os.environ["BROKER"]):
            yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=201)
async def order(wanted: Order) -> dict[str, str]:
    """Take an order."""
    return {"key": await app.state.shop.order(wanted.amount_cents)}


@app.get("/orders")
async def orders() -> list[dict[str, object]]:
    """Say what became of the orders."""
    found: list[dict[str, object]] = await app.state.shop.orders()
    return found
