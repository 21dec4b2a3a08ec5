"""Running the examples of a page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from fusewire import default_registry
from fusewire.brokers import Message, Topology, open_broker
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.errors import QueueNotFoundError
from tests.docs.own_payments import CHARGE
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.support.payments import PaymentsProcess


def run_examples(path: Path, names: dict[str, Any]) -> dict[str, Any]:
    """Run all Python blocks of a page, in order and in one namespace; return that."""
    page = Sybil(parsers=[PythonCodeBlockParser()]).parse(path)
    page.namespace.update(names)
    for example in page.examples():
        example.evaluate()
    return dict(page.namespace)


async def consume_through_an_outage(
    consume: Callable[[], Awaitable[None]], address: str, payments: PaymentsProcess
) -> None:
    """See a consumer of ``orders`` park an order while the server is down, and make it after."""
    order = ChargeRequest(account="bob", amount_cents=1, currency="EUR", reference="order-1")
    payments.kill()
    breaker = default_registry().get(CHARGE)
    while breaker.can_execute():
        breaker.acquire().failure()
    async with open_broker(address) as broker:
        await broker.create_queue("orders")
        message = Message(body=order.SerializeToString(), message_id="order-1")
        await broker.publish("orders", message)
        consuming = asyncio.ensure_future(consume())

        async def parked() -> bool:
            try:
                return await broker.depth(Topology("orders").parked(CHARGE)) == 1
            except QueueNotFoundError:  # the consumer has not made it yet
                return False

        await until(parked)
        payments.start()
        breaker.reset()
        await until(lambda: "order-1" in payments.references())
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
