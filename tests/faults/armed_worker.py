"""A worker that is armed to die at an await, and notes in a journal what it has in hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.brokers import RabbitMQBroker
from fusewire.brokers.rabbitmq.subscription import RabbitMQDelivery
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.errors import BrokerError
from fusewire.interceptors import aio_interceptors
from fusewire.parking import ParkingConsumer
from fusewire.testing.faults import Side, arm
from tests.support.payments import CHANNEL_OPTIONS, CHARGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractIncomingMessage

DELAY_TIERS = (0.1, 0.5)
LANE = "payments"
FAILS_ONCE = "-once"
"""End of the references whose handler fails the first time."""


class Journal:
    """A file that says what is in hand; each line stands there before the next step is taken."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, operation_id: str | None) -> None:
        os.write(self._file, f"{what} {operation_id}\n".encode())

    def watch_deliveries(self) -> None:
        """Note every settlement before it begins and after it ended."""

        def noted(name: str) -> None:
            settle: Callable[..., Awaitable[None]] = getattr(RabbitMQDelivery, name)

            async def settle_noted(delivery: RabbitMQDelivery, *args: Any) -> None:
                operation_id = delivery.message.message_id
                self.note("take", operation_id)
                try:
                    await settle(delivery, *args)
                except BrokerError:
                    self.note("doubt", operation_id)
                    raise
                # A move settles by done(), which has noted that it is settled.
                self.note("settled", operation_id)

            setattr(RabbitMQDelivery, name, settle_noted)

        noted("move")
        noted("done")


async def work(order: dict[str, Any]) -> None:
    """Consume until SIGTERM; from the signal SIGUSR1 on, or from the start, be armed."""
    journal = Journal(order["journal"])
    journal.watch_deliveries()
    if order["await"]:

        def be_armed() -> None:
            arm(order["await"], Side(order["side"]), hit=order["hit"])

        if order["when"] == "parking":
            be_armed()
        else:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, be_armed)
    registry = BreakerRegistry(
        BreakerSettings(failure_threshold=3, recovery_timeout=0.3, half_open_max_calls=2)
    )
    interceptors = aio_interceptors(registry=registry, idempotent=[CHARGE])
    async with grpc.aio.insecure_channel(
        order["target"], interceptors=interceptors, options=CHANNEL_OPTIONS
    ) as channel:
        stub: Any = PaymentsStub(channel)  # type: ignore[call-overload] # generated for both kinds

        async def on_order(message: AbstractIncomingMessage) -> None:
            request = ChargeRequest.FromString(message.body)
            journal.note("take", message.message_id)
            if request.reference.endswith(FAILS_ONCE):
                marker = f"{order['folder']}/{request.reference}"
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
                    raise ValueError("the first time it fails")
            try:
                await stub.Charge(request, timeout=1)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    journal.note("doubt", message.message_id)
                raise

        broker = RabbitMQBroker(order["url"], timeout=order["timeout"])
        async with (
            broker,
            ParkingConsumer(
                broker,
                queue=order["queue"],
                handler=on_order,
                registry=registry,
                depends_on=CHARGE,
                lanes={LANE: [CHARGE]},
                delay_tiers=DELAY_TIERS,
                concurrency=4,
                replay_concurrency=4,
            ) as consumer,
        ):
            consumer.add_listener(
                lambda event: journal.note(f"event-{event.happening}", event.operation_id)
            )
            # run() takes signals when its first await hands over to the loop.
            asyncio.get_running_loop().call_soon(journal.note, "running", None)
            await consumer.run()
