"""A broker of each kind, and a consumer that runs for the length of a test."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.brokers import Broker, Message, RabbitMQBroker, open_broker
from fusewire.parking import MessageEvent, ParkingConsumer, ReplayPolicy, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

RETRY = [field.name for field in dataclasses.fields(RetryPolicy)]
REPLAY = [field.name for field in dataclasses.fields(ReplayPolicy)]

RECOVERY = 0.3
"""Seconds that circuits stay open in these tests."""


class Bench:
    """One source queue on one broker, and what consumers of it did."""

    def __init__(self, address: str, broker: Broker, queue: str, registry: BreakerRegistry) -> None:
        self.address = address
        self.broker = broker
        self.queue = queue
        self.registry = registry
        self.events: list[MessageEvent] = []
        self.consumers: list[ParkingConsumer] = []

    async def send(self, *bodies: str, **properties: Any) -> None:
        """Publish one message for each body; its body is its message id too."""
        for body in bodies:
            message = Message(
                body=body.encode(),
                **{"message_id": body, "routing_key": self.queue, **properties},
            )
            await self.broker.publish(self.queue, message)

    @asynccontextmanager
    async def consumer(self, handler: Any, **options: Any) -> AsyncIterator[ParkingConsumer]:
        """Run a consumer of the queue for the block, and see it end in order.

        The fields of the policies may stand among the options.
        """
        retry = {name: options.pop(name) for name in RETRY if name in options}
        replay = {
            name: options.pop(f"replay_{name}") for name in REPLAY if f"replay_{name}" in options
        }
        options = {"registry": self.registry, **options}
        consumer = ParkingConsumer(
            self.broker,
            queue=self.queue,
            handler=handler,
            retry=RetryPolicy(**{"delays": (0.05, 0.2), **retry}),
            replay=ReplayPolicy(**replay),
            **options,
        )
        consumer.add_listener(self.events.append)
        async with consumer:
            running = asyncio.create_task(consumer.run())
            try:
                yield consumer
            finally:
                consumer.stop()
                await asyncio.wait_for(running, 40)

    async def drop_connection(self) -> None:
        """Cut what consumers consume on, as a network would."""
        assert isinstance(self.broker, RabbitMQBroker)
        await self.broker._consuming.close()

    def happened(self, outcome: str) -> list[str]:
        """Return the operation ids to which it happened, in order."""
        return [event.operation_id for event in self.events if event.outcome == outcome]

    async def depth(self, suffix: str) -> int:
        """Count what waits in a derived queue."""
        return await self.broker.depth(f"{self.queue}.{suffix}")

    async def dead(self) -> list[Message]:
        """Return the dead messages."""
        return await self.broker.peek(f"{self.queue}.dead", limit=100)


@pytest.fixture
def registry() -> BreakerRegistry:
    return BreakerRegistry(
        BreakerSettings(failure_threshold=2, recovery_timeout=RECOVERY, half_open_max_calls=1)
    )


@pytest.fixture(params=["sqlite", "rabbitmq"])
async def bench(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    queue_name: str,
    forget_queue: Callable[[str], None],
    registry: BreakerRegistry,
) -> AsyncIterator[Bench]:
    if request.param == "rabbitmq":
        address = request.getfixturevalue("amqp_url")
    else:
        address = f"sqlite:///{tmp_path}/broker.db"
    for suffix in ("parked.payments", "parked.stock", "delay.50", "delay.200", "delay.600000"):
        forget_queue(f"{queue_name}.{suffix}")
    async with open_broker(address) as broker:
        await broker.create_queue(queue_name)
        yield Bench(address, broker, queue_name, registry)
