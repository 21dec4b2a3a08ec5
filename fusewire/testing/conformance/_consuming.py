"""A consumer on the broker: parked, replayed, delayed and dead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fusewire.breaker import BreakerRegistry
from fusewire.parking import ParkingConsumer, RetryPolicy
from fusewire.testing.conformance._messages import LIMIT, numbered, until, until_depth

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Broker, Topology


class Consuming:
    """`ParkingConsumer` works on the broker."""

    async def test_a_consumer_parks_replays_delays_and_dead_letters(
        self, broker: Broker, topology: Topology
    ) -> None:
        handled: list[bytes] = []
        failed: list[bytes] = []

        async def handler(message: AbstractIncomingMessage) -> None:
            if message.body == b"13":
                failed.append(message.body)
                raise ValueError("it will never be handled")
            handled.append(message.body)

        async def is_handled() -> bool:
            return sorted(handled) == [b"1", b"2"]

        registry = BreakerRegistry()
        registry.get("payments").force_open()
        consumer = ParkingConsumer(
            broker,
            queue=topology.source,
            handler=handler,
            depends_on="payments",
            registry=registry,
            retry=RetryPolicy(max_attempts=2, delays=topology.delays[:1]),
        )
        async with consumer:
            running = asyncio.create_task(consumer.run(handle_signals=False))
            for number in (1, 13, 2):
                await broker.publish(topology.source, numbered(number))
            await until_depth(broker, consumer.topology.parked("payments"), 3)
            assert not handled
            registry.get("payments").reset()
            await until(is_handled)
            await until_depth(broker, consumer.topology.dead, 1)
            consumer.stop()
            await asyncio.wait_for(running, LIMIT)

        assert len(failed) == 2
        [dead] = await broker.peek(consumer.topology.dead, limit=5)
        assert dead.body == b"13"
        assert dead.headers["fusewire-reason"] == "exhausted"
