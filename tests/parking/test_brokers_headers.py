"""What the broker has written on a message is shown to handlers, and stays with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from fusewire.brokers import RabbitMQBroker
from fusewire.parking import Reject
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

DEATHS: dict[str, Any] = {
    "x-death": [{"queue": "orders.wait", "reason": "expired", "count": 3}],
    "x-first-death-queue": "orders.wait",
    "x-last-death-queue": "orders.wait",
    "CC": ["audit"],
    "x-delivery-count": 2,
}


async def test_a_handler_sees_the_brokers_headers_on_every_attempt_and_the_dead_keep_them(
    bench: Bench,
) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    seen: list[dict[str, Any]] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        seen.append(dict(message.headers))
        await dependency(message)
        if len(seen) == 2:
            raise ValueError("once more")
        raise Reject("no more", reason="enough")

    kept = {name: value for name, value in DEATHS.items() if name != "x-delivery-count"}
    await bench.send("a", headers=DEATHS)
    async with bench.consumer(handler):
        await until(lambda: len(bench.happened("parked")) == 1)
        dependency.recover()
        await until(lambda: bench.happened("dead") == ["a"])
    assert len(seen) == 3  # refused by the circuit, replayed, delayed
    assert all(headers == DEATHS for headers in seen)
    [dead] = await bench.dead()
    assert {name: dead.headers[name] for name in kept} == kept


async def test_how_often_a_message_was_returned_is_shown_from_its_second_delivery_on_and_kept(
    bench: Bench,
) -> None:
    if not isinstance(bench.broker, RabbitMQBroker):
        pytest.skip("SQLite counts otherwise")
    await bench.send("a")
    for _ in range(2):
        subscription = await bench.broker.subscribe(bench.queue, prefetch=1)
        await subscription.receive()
        await subscription.release()
    seen: list[object] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        seen.append(message.headers.get("x-delivery-count"))
        raise ValueError("no")

    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: bench.happened("dead") == ["a"])
    assert seen == [2, 2]
    [dead] = await bench.dead()
    assert dead.headers["x-delivery-count"] == 2


async def test_a_handler_that_counts_its_rounds_by_x_death_finds_their_end(
    bench: Bench, amqp_url: str
) -> None:
    if not isinstance(bench.broker, RabbitMQBroker):
        pytest.skip("RabbitMQ counts")
    wait = f"{bench.queue}.wait"
    handled: list[int] = []
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(
            wait,
            durable=True,
            arguments={
                "x-message-ttl": 20,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": bench.queue,
            },
        )

        async def handler(message: AbstractIncomingMessage) -> None:
            deaths: Any = message.headers.get("x-death", [])
            rounds = sum(death["count"] for death in deaths if death["queue"] == wait)
            handled.append(rounds)
            if rounds < 1:
                await channel.default_exchange.publish(aio_pika.Message(message.body), wait)

        await bench.send("a")
        async with bench.consumer(handler):
            await until(lambda: len(handled) == 2)
        assert handled == [0, 1]
        await channel.queue_delete(wait)
