"""A worker that is armed to die at an await, and notes in a journal what it has in flight."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitState, StateChanged
from fusewire.brokers import RabbitMQBroker
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.errors import CircuitOpenError
from fusewire.interceptors import aio_interceptors
from fusewire.parking import ParkingConsumer, ReplayPolicy, Retry, RetryPolicy
from fusewire.testing.faults import Journal, Side, arm
from fusewire.testing.faults._journal import Entry
from tests.support.payments import CHANNEL_OPTIONS, CHARGE

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.breaker import Event

DELAY_TIERS = (0.1, 0.5)
LANE = "payments"
FAILS_ONCE = "-once"
"""End of the references whose handler fails the first time."""
LATER = "-later"
"""End of the references whose handler asks for another time the first time, some hops away."""
_LATER = 0.3
AT_ONCE = {"parking", "declaring"}
"""The parts of the outage for which a worker is armed from the start."""
RUNNING, OPENED = "running", "opened"
"""Noted when signals are taken, and when the circuit opens."""


_UNANSWERED = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}
_NEVER_SENT = "failed to connect to all addresses"


def the_first_time(reference: str, folder: str) -> None:
    """Fail, or ask for another time, if this is an order that does so once."""
    failures = {FAILS_ONCE: ValueError("the first time it fails"), LATER: Retry(after=_LATER)}
    for ending, failure in failures.items():
        if reference.endswith(ending):
            with contextlib.suppress(FileExistsError):
                os.close(os.open(f"{folder}/{reference}", os.O_CREAT | os.O_EXCL))
                raise failure


def may_have_taken_effect(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a failed call may have been carried out, though nobody answered.

    A server that is killed while it works on a call may have committed it, and takes the answer
    along. A call that was refused by our own circuit, or found no connection, was never sent.
    """
    if isinstance(error, CircuitOpenError) or error.code() not in _UNANSWERED:
        return False
    return not (error.details() or "").startswith(_NEVER_SENT)


async def work(order: dict[str, Any]) -> None:
    """Consume until SIGTERM; from the signal SIGUSR1 on, or from the start, be armed."""
    journal = Journal(order["journal"])
    if order["await"]:

        def be_armed() -> None:
            arm(order["await"], Side(order["side"]), hit=order["hit"])

        if order["when"] in AT_ONCE:
            be_armed()
        else:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, be_armed)
    registry = BreakerRegistry(
        BreakerSettings(failure_threshold=3, recovery_timeout=0.3, half_open_max_calls=2)
    )

    def on_change(event: Event) -> None:
        if isinstance(event, StateChanged) and event.new is CircuitState.OPEN:
            journal.note(Entry(OPENED))

    registry.get(CHARGE).add_listener(on_change)
    interceptors = aio_interceptors(registry=registry, idempotent=[CHARGE])
    async with grpc.aio.insecure_channel(
        order["target"], interceptors=interceptors, options=CHANNEL_OPTIONS
    ) as channel:
        stub: Any = PaymentsStub(channel)

        async def on_order(message: AbstractIncomingMessage) -> None:
            request = ChargeRequest.FromString(message.body)
            journal.began(message.message_id or "")
            the_first_time(request.reference, order["folder"])
            try:
                await stub.Charge(request, timeout=1)
            except grpc.aio.AioRpcError as error:
                if may_have_taken_effect(error):
                    why = f"a call got no answer: {error.code().name}, {error.details()}"
                    journal.doubt(message.message_id or "", why)
                raise

        broker = RabbitMQBroker(order["url"], timeout=order["timeout"])
        async with (
            broker,
            ParkingConsumer(
                journal.watch(broker),
                queue=order["queue"],
                handler=on_order,
                registry=registry,
                depends_on=CHARGE,
                lanes={LANE: [CHARGE]},
                retry=RetryPolicy(delays=DELAY_TIERS),
                exchange=order["exchange"],
                concurrency=order["concurrency"],
                replay=ReplayPolicy(concurrency=order["concurrency"]),
            ) as consumer,
        ):
            consumer.add_listener(
                lambda event: journal.note(Entry(event.outcome, event.operation_id))
            )
            # run() takes signals when its first await hands over to the loop.
            asyncio.get_running_loop().call_soon(journal.note, Entry(RUNNING))
            await consumer.run()
