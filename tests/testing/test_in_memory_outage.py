"""Users' tests on the broker in memory: handlers and stored calls go through an outage."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire import (
    BreakerRegistry,
    BreakerSettings,
    ParkedCalls,
    ParkingConsumer,
    Receipt,
    ReplayPolicy,
    RetryPolicy,
    aio_interceptors,
)
from fusewire.brokers import Message
from fusewire.testing import FakeClock, InMemoryBroker
from tests.support.ports import reserve_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.parking import MessageEvent

CHARGE = "/shop.Payments/Charge"


@pytest.fixture
def registry() -> BreakerRegistry:
    return BreakerRegistry(BreakerSettings(failure_threshold=2, recovery_timeout=0.2))


@asynccontextmanager
async def running(consumer: ParkingConsumer) -> AsyncIterator[None]:
    async with consumer:
        task = asyncio.create_task(consumer.run(handle_signals=False))
        yield
        consumer.stop()
        await task


async def test_a_consumer_parks_in_an_outage_and_replays_after_it(
    registry: BreakerRegistry,
) -> None:
    down = True
    charged: list[bytes] = []

    async def charge(message: AbstractIncomingMessage) -> None:
        with registry.get("payments").acquire():
            if down:
                raise ConnectionError("the server is down")
            charged.append(message.body)

    async with InMemoryBroker() as broker:
        await broker.create_queue("orders")
        consumer = ParkingConsumer(
            broker, queue="orders", handler=charge, depends_on="payments", registry=registry
        )
        async with running(consumer):
            for number in range(10):
                await broker.publish("orders", Message(body=b"%d" % number, message_id=str(number)))
            await broker.until_holds("orders", 0)
            await until(lambda: registry.get("payments").state == "open")
            assert charged == []

            down = False
            await until(lambda: len(charged) == 10, "every order is charged")

        for station in consumer.topology.stations:
            assert await broker.depth(station) == 0
        assert sorted(charged) == [b"%d" % number for number in range(10)]


async def test_a_delay_of_an_hour_is_over_when_the_clock_says_so(
    registry: BreakerRegistry,
) -> None:
    clock = FakeClock()
    bodies: list[bytes] = []

    async def fail_once(message: AbstractIncomingMessage) -> None:
        bodies.append(message.body)
        if len(bodies) == 1:
            raise ValueError("not yet")

    async with InMemoryBroker(clock=clock) as broker:
        await broker.create_queue("orders")
        retry = RetryPolicy(delays=(3600.0,))
        consumer = ParkingConsumer(
            broker, queue="orders", handler=fail_once, registry=registry, retry=retry
        )
        async with running(consumer):
            await broker.publish("orders", Message(body=b"order"))
            await broker.until_holds(consumer.topology.delayed, 1)
            clock.advance(3599.9)
            await broker.until_holds(consumer.topology.delayed, 1)
            clock.advance(0.2)
            await until(lambda: len(bodies) == 2)


class Payments(grpc.GenericRpcHandler):
    """A payments server in this process that honors the idempotency key."""

    def __init__(self) -> None:
        self.charged: dict[str, bytes] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._charge)

    async def _charge(self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        self.charged.setdefault(str(metadata["idempotency-key"]), request)
        return b"charged"


async def test_a_call_is_stored_in_an_outage_and_made_after_it(registry: BreakerRegistry) -> None:
    target = f"127.0.0.1:{reserve_port()}"  # nobody listens yet
    events: list[MessageEvent] = []

    def pending(request: bytes, receipt: Receipt) -> bytes:
        return b"pending:" + receipt.operation_id.encode()

    broker = InMemoryBroker()
    async with (
        broker,
        ParkedCalls(
            broker.address, queue="charges", registry=registry, replay=ReplayPolicy(concurrency=1)
        ) as calls,
    ):
        calls.add_listener(events.append)
        interceptors = aio_interceptors(
            registry=registry,
            fallbacks={CHARGE: calls.park(reply=pending, idempotent=True)},
        )
        options = [("grpc.max_reconnect_backoff_ms", 200)]
        async with grpc.aio.insecure_channel(
            target, interceptors=interceptors, options=options
        ) as channel:
            charge: Any = channel.unary_unary(CHARGE)
            reply = await charge(b"9.95", timeout=2)
            operation_id = reply.removeprefix(b"pending:").decode()
            [stored] = await broker.peek(calls.topology.parked("other"), limit=5)
            assert stored.message_id == operation_id

            payments = Payments()
            server = grpc.aio.server(handlers=[payments])
            server.add_insecure_port(target)
            await server.start()
            try:
                async with calls.forward_to(channel):
                    await until(lambda: any(event.outcome == "replayed" for event in events))
            finally:
                await server.stop(None)

    assert payments.charged == {operation_id: b"9.95"}
