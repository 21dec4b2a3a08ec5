"""The load: payments at a steady rate, the same for each client, and what each was answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import grpc.aio

from fusewire.demo._config import ACCOUNTS, CALL_TIMEOUT, Client
from fusewire.demo.payments.v1.payments_pb2 import STATUS_PENDING, ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub

if TYPE_CHECKING:
    from fusewire.demo._worker import Worker


class Payer:
    """Asks for payments on a channel, as one of the clients, and reports each to the parent."""

    def __init__(self, worker: Worker, client: Client, channel: grpc.aio.Channel) -> None:
        self._worker = worker
        self._client = client
        self._payments = PaymentsStub(channel)

    async def pay(self, rate: float) -> None:
        """Ask for `rate` payments a second, from the parent's go until its quiet."""
        await self._worker.steadily(rate, self._charge)

    async def _charge(self, number: int) -> None:
        reference = f"{self._client.prefix}{number}"
        request = ChargeRequest(
            account=ACCOUNTS[number % len(ACCOUNTS)],
            amount_cents=100 + number % 900,
            currency="EUR",
            reference=reference,
        )
        self._worker.send("asked", client=self._client, reference=reference)
        begin = time.monotonic()
        operation, code = "", ""
        try:
            reply = await self._payments.Charge(request, timeout=CALL_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            result, code = "error", f"{error.code().name}: {error.details()}"
        else:
            result = "pending" if reply.status == STATUS_PENDING else "ok"
            operation = reply.operation_id
        self._worker.send(
            "answered",
            client=self._client,
            reference=reference,
            begin=begin,
            took=time.monotonic() - begin,
            result=result,
            operation=operation,
            code=code,
        )
