"""The server process is killed while orders and payments come in, on a real RabbitMQ."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.demo.payments.v1.payments_pb2 import (
    STATUS_CHARGED,
    STATUS_PENDING,
    ChargeReply,
    ChargeRequest,
    GetBalanceRequest,
)
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.forwarding import ParkedCalls, Receipt
from fusewire.interceptors import aio_interceptors
from fusewire.parking import MessageEvent, ParkingConsumer, RetryPolicy
from tests.support.payments import CHANNEL_OPTIONS, CHARGE, GET_BALANCE, PaymentsProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aio_pika.abc import AbstractIncomingMessage

    from tests.faults.conftest import Outsider


def registry_of(half_open_max_calls: int) -> BreakerRegistry:
    return BreakerRegistry(
        BreakerSettings(
            failure_threshold=3, recovery_timeout=0.5, half_open_max_calls=half_open_max_calls
        )
    )


class Orders:
    """A consumer of orders whose handler calls the payments server."""

    def __init__(self, consumer: ParkingConsumer, queue: str, lane: str) -> None:
        self.consumer = consumer
        self.lane = consumer.topology.parked(lane)
        self.events: list[MessageEvent] = []
        consumer.add_listener(self.events.append)

    def happened(self, outcome: str) -> list[str]:
        return [event.operation_id for event in self.events if event.outcome == outcome]


@asynccontextmanager
async def orders(
    url: str,
    queue: str,
    server: PaymentsProcess,
    *,
    half_open_max_calls: int = 3,
    two_calls: bool = False,
) -> AsyncIterator[Orders]:
    registry = registry_of(half_open_max_calls)
    interceptors = aio_interceptors(registry=registry, idempotent=[CHARGE])
    async with grpc.aio.insecure_channel(
        server.target, interceptors=interceptors, options=CHANNEL_OPTIONS
    ) as channel:
        stub: Any = PaymentsStub(channel)

        async def on_order(message: AbstractIncomingMessage) -> None:
            async with message.process():
                if two_calls:
                    await stub.GetBalance(GetBalanceRequest(account="shop"), timeout=2)
                await stub.Charge(ChargeRequest.FromString(message.body), timeout=2)

        first = GET_BALANCE if two_calls else CHARGE
        needs = [GET_BALANCE, CHARGE] if two_calls else CHARGE
        async with ParkingConsumer(
            url,
            queue=queue,
            handler=on_order,
            registry=registry,
            depends_on=needs,
            retry=RetryPolicy(delays=(0.1, 0.5, 1.0)),
        ) as consumer:
            running = asyncio.create_task(consumer.run())
            yield Orders(consumer, queue, first)
            consumer.stop()
            await asyncio.wait_for(running, 40)


@pytest.fixture
def forget(queue_name: str, forget_queue: Callable[[str], None]) -> None:
    for suffix in (
        "delay.100",
        "delay.500",
        "parked./fusewire.demo.payments.v1.Payments/Charge",
        "parked./fusewire.demo.payments.v1.Payments/GetBalance",
    ):
        forget_queue(f"{queue_name}.{suffix}")


@pytest.mark.parametrize(
    "probes",
    [(3, False), (1, False), (1, True), (3, True)],
    ids=["three probes", "one probe", "one probe, two calls", "three probes, two calls"],
)
@pytest.mark.usefixtures("forget")
async def test_orders_of_an_outage_stand_in_the_lane_until_the_server_is_back(
    amqp_url: str,
    queue_name: str,
    payments: PaymentsProcess,
    outsider: Outsider,
    probes: tuple[int, bool],
) -> None:
    half_open_max_calls, two_calls = probes
    await outsider.declare(queue_name)
    async with orders(
        amqp_url,
        queue_name,
        payments,
        half_open_max_calls=half_open_max_calls,
        two_calls=two_calls,
    ) as running:
        for number in range(20):
            await outsider.order(queue_name, f"before-{number}")
        await until(lambda: len(running.happened("handled")) == 20)  # and not only charged for
        payments.kill()
        for number in range(40):
            await outsider.order(queue_name, f"during-{number}")
        await until(lambda: len(set(running.happened("parked"))) == 40)

        # All stand in the lane; of those at its head, some are in the hand that waits to replay.
        async def all_there() -> bool:
            return await outsider.count(str(running.lane)) >= 30

        await until(all_there)
        before = len(running.events)
        await until(lambda: len(running.events) > before + 2)  # failed probes go back to the lane
        await until(all_there)
        assert running.happened("replayed") == []
        payments.start()
        await until(lambda: len(payments.references()) == 60, limit=60)
        await until(lambda: len(set(running.happened("replayed"))) == 40)

        async def drained() -> bool:
            return await outsider.count(str(running.lane)) == 0

        await until(drained)
    assert set(payments.effects().values()) == {1}
    assert set(payments.references().values()) == {1}
    assert running.happened("dead") == []
    assert {key.split("/")[0] for key in payments.effects()} == set(payments.references())


@pytest.mark.usefixtures("forget")
async def test_the_server_dies_again_during_the_replay_and_every_order_is_made_once(
    amqp_url: str, queue_name: str, payments: PaymentsProcess, outsider: Outsider
) -> None:
    await outsider.declare(queue_name)
    async with orders(amqp_url, queue_name, payments, half_open_max_calls=1) as running:
        payments.kill()
        for number in range(60):
            await outsider.order(queue_name, f"order-{number}")
        await until(lambda: len(set(running.happened("parked"))) == 60)
        for made in (1, 10, 30):
            payments.start()
            await until(lambda made=made: len(payments.references()) >= made, limit=60)
            payments.kill()
        payments.start()
        await until(lambda: len(payments.references()) == 60, limit=60)
        done = running.happened
        await until(lambda: len({*done("replayed"), *done("handled")}) == 60)
    assert set(payments.effects().values()) == {1}
    assert running.happened("dead") == []


def pending(request: ChargeRequest, receipt: Receipt) -> ChargeReply:
    return ChargeReply(status=STATUS_PENDING, operation_id=receipt.operation_id)


async def test_payments_are_parked_and_made_once_though_the_server_dies_during_replay(
    amqp_url: str, queue_name: str, payments: PaymentsProcess
) -> None:
    registry = registry_of(1)
    events: list[MessageEvent] = []
    answers: dict[str, int] = {}
    async with ParkedCalls(
        amqp_url, queue=queue_name, registry=registry, retry=RetryPolicy(delays=(1.0, 5.0))
    ) as calls:
        calls.add_listener(events.append)
        fallbacks = {CHARGE: calls.park(reply=pending, idempotent=True)}
        interceptors = aio_interceptors(registry=registry, fallbacks=fallbacks)
        channel = grpc.aio.insecure_channel(
            payments.target, interceptors=interceptors, options=CHANNEL_OPTIONS
        )
        forwarding = calls.forward_to(channel)
        stub: Any = PaymentsStub(channel)

        async def pay(reference: str) -> None:
            request = ChargeRequest(
                account="alice", amount_cents=1, currency="EUR", reference=reference
            )
            reply = await stub.Charge(
                request, timeout=2, metadata=(("idempotency-key", f"op-{reference}"),)
            )
            answers[reply.operation_id] = reply.status

        await asyncio.gather(*(pay(f"before-{number}") for number in range(10)))
        payments.kill()
        for number in range(60):
            await pay(f"during-{number}")
        assert set(answers.values()) == {STATUS_CHARGED, STATUS_PENDING}
        payments.start()
        await until(lambda: len(payments.references()) >= 20, limit=60)
        payments.kill()
        settled = {event.operation_id for event in events if event.outcome == "replayed"}
        assert settled <= set(payments.effects())  # no fallback's reply settled a parked call
        payments.start()
        await until(lambda: len(payments.references()) == 70, limit=60)
        await until(
            lambda: (
                {event.operation_id for event in events if event.outcome == "replayed"}
                == {f"op-during-{number}" for number in range(60)}
            )
        )
        await forwarding.end()
        await channel.close()
    assert set(payments.effects()) == set(answers)
    assert set(payments.effects().values()) == {1}
