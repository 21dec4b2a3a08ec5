"""Publishes ten orders a second, for as long as it runs.

AMQP_URL=amqp://… QUEUE=orders python publish.py
"""

from __future__ import annotations

import asyncio
import os
import uuid

from fusewire.brokers import Message, open_broker
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest


async def main() -> None:
    queue = os.environ["QUEUE"]
    async with open_broker(os.environ["AMQP_URL"]) as broker:
        await broker.create_queue(queue)
        while True:
            order = uuid.uuid4().hex
            request = ChargeRequest(
                account="bob", amount_cents=1999, currency="EUR", reference=order
            )
            body = request.SerializeToString()
            await broker.publish(queue, Message(body=body, message_id=order, routing_key=queue))
            await asyncio.sleep(0.1)


asyncio.run(main())
