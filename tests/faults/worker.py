"""A worker that kills itself in the middle of a move: ``worker.py URL QUEUE TARGET WHEN``.

WHEN is ``confirmed`` (after the confirm, before the acknowledgement), ``published`` (after the
publish, before the confirm is seen) or ``never``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import aiormq.channel
import grpc.aio

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.brokers.rabbitmq._subscription import RabbitMQDelivery
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.interceptors import aio_interceptors
from fusewire.parking import ParkingConsumer
from tests.support.payments import CHANNEL_OPTIONS, CHARGE

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage


async def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, queue: str, target: str, when: str) -> None:
    if when == "confirmed":
        RabbitMQDelivery.done = die  # type: ignore[assignment]
    if when == "published":
        aiormq.channel.Channel._on_confirm_frame = die  # type: ignore[assignment]
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1, recovery_timeout=0.5))
    interceptors = aio_interceptors(registry=registry, idempotent=[CHARGE])
    async with grpc.aio.insecure_channel(
        target, interceptors=interceptors, options=CHANNEL_OPTIONS
    ) as channel:
        stub: Any = PaymentsStub(channel)

        async def on_order(message: AbstractIncomingMessage) -> None:
            await stub.Charge(ChargeRequest.FromString(message.body), timeout=2)

        async with ParkingConsumer(
            url, queue=queue, handler=on_order, registry=registry, concurrency=1
        ) as consumer:
            await consumer.run()


asyncio.run(main(*sys.argv[1:]))
