"""What RabbitMQ and its client do to consumers, and what a handler's message comes to."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aio_pika
import pytest
from aiormq.channel import Channel

from fusewire.brokers import RabbitMQBroker
from fusewire.operation import current_operation
from fusewire.parking import _consumer as consumer_module
from fusewire.parking import _receiver as receiver_module
from fusewire.testing.faults import Drop, FaultProxy
from tests.parking.conftest import Bench
from tests.support.dependency import Dependency
from tests.support.messages import until_depth
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractIncomingMessage

pytestmark = pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)

CONSUMER_TIMEOUT = 1800.0
"""Seconds after which RabbitMQ closes the channel of an unacknowledged delivery, by default."""


@asynccontextmanager
async def through_a_proxy(bench: Bench) -> AsyncIterator[tuple[FaultProxy, Bench]]:
    """Provide a proxy, and a bench whose consumers go through it."""
    parts = urlsplit(bench.address)
    credentials, at, _ = parts.netloc.rpartition("@")
    async with FaultProxy(parts.hostname or "localhost", parts.port or 5672) as proxy:
        url = parts._replace(netloc=f"{credentials}{at}127.0.0.1:{proxy.port}").geturl()
        async with RabbitMQBroker(url, timeout=2) as broker:
            yield proxy, Bench(url, broker, bench.queue, bench.registry)


async def test_a_handler_is_not_cancelled_when_its_consuming_connection_drops(bench: Bench) -> None:
    ends: list[str] = []
    go_on = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("done")

    await bench.send("a")
    async with (
        through_a_proxy(bench) as (proxy, far),
        far.consumer(handler, concurrency=1),
    ):

        async def in_hand() -> bool:
            return await bench.broker.depth(bench.queue) == 0

        await until(in_hand)
        accepted = proxy.accepted
        proxy.cut()
        await until(lambda: proxy.accepted > accepted)
        go_on.set()
        await until(lambda: far.happened("handled") == ["a"])
    assert ends == ["done"]


async def test_an_effect_whose_acknowledgement_was_lost_is_repeated_under_the_same_id(
    bench: Bench,
) -> None:
    ids: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        operation = current_operation()
        assert operation is not None
        ids.append(operation.id)

    await bench.send("a")
    async with through_a_proxy(bench) as (proxy, far), far.consumer(handler):
        proxy.drop(Drop.ACKNOWLEDGEMENTS)
        await bench.send("b")
        await until(lambda: "b" in far.happened("handled"))
        await until(lambda: proxy.dropped)
        proxy.heal()
        proxy.cut()
        await until(lambda: far.happened("handled").count("b") == 2)
    assert Counter(ids)["b"] == 2


async def test_consuming_and_replaying_resume_by_themselves_after_every_lost_connection(
    bench: Bench,
) -> None:
    dependency = Dependency(bench.registry)
    async with (
        through_a_proxy(bench) as (proxy, far),
        far.consumer(dependency, depends_on="payments"),
    ):
        for lost in range(1, 4):
            await bench.send(f"new-{lost}")
            await until(lambda: len(far.happened("handled")) >= lost)  # noqa: B023 - awaited here
            dependency.breaker.force_open()
            await bench.send(f"parked-{lost}")
            await until(lambda: len(set(far.happened("parked"))) == lost)  # noqa: B023
            proxy.cut()
            dependency.breaker.reset()
            await until(lambda: len(set(far.happened("replayed"))) == lost)  # noqa: B023


async def test_nothing_is_ever_requeued_as_parking(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On RabbitMQ 4.0 to 4.2 twenty bounces drop a healthy message, as do nacks on a limited queue.
    requeued: list[object] = []

    async def note(*arguments: object, **_: object) -> None:
        requeued.append(arguments)

    monkeypatch.setattr(Channel, "basic_nack", note)
    monkeypatch.setattr(Channel, "basic_reject", note)
    dependency = Dependency(bench.registry)
    dependency.trip()
    tries: Counter[str] = Counter()

    async def handler(message: AbstractIncomingMessage) -> None:
        body = message.body.decode()
        tries[body] += 1
        if tries[body] == 1:
            match body:
                case "nack":
                    await message.nack(requeue=True)
                    return
                case "reject":
                    await message.reject(requeue=True)
                    return
                case "fail":
                    raise ValueError("not yet")
        await dependency(message)

    bodies = {"nack", "reject", "fail", "plain"}
    await bench.send(*bodies)
    async with bench.consumer(handler):
        await until(lambda: set(bench.happened("parked")) == bodies)
        dependency.recover()
        await until(lambda: set(bench.happened("replayed")) == bodies)
    assert requeued == []


async def test_a_failed_attempt_from_a_limited_queue_is_moved_and_never_returned(
    bench: Bench,
) -> None:
    connection = await aio_pika.connect(bench.address)
    async with connection, connection.channel() as channel:
        await channel.queue_delete(bench.queue)
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": 1}
        await channel.declare_queue(bench.queue, durable=True, arguments=arguments)
    attempts = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 5:
            raise ValueError("not yet")

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("handled") == ["a"])
    assert attempts == 5


async def test_what_a_full_queue_refuses_is_held_in_flight_and_consuming_stops(
    bench: Bench,
) -> None:
    connection = await aio_pika.connect(bench.address)
    async with connection, connection.channel() as channel:
        arguments: dict[str, Any] = {
            "x-queue-type": "quorum",
            "x-max-length": 1,
            "x-overflow": "reject-publish",
        }
        full = await channel.declare_queue(
            f"{bench.queue}.parked.payments", durable=True, arguments=arguments
        )
        bench.registry.get("payments").force_open()
        bodies = [f"m{number}" for number in range(30)]
        await bench.send(*bodies)
        async with bench.consumer(Dependency(bench.registry), depends_on="payments", concurrency=2):
            # Two in flight, and one or two more than its limit in the queue.
            await until(lambda: len(bench.happened("parked")) >= 1)

            async def stopped() -> bool:
                left = await bench.broker.depth(bench.queue)
                return left == 30 - 2 - len(bench.happened("parked")) and left > 20

            await until(stopped)
            seen: list[str] = []
            while len(seen) < 30:  # each that is taken off makes room for the next
                taken = await full.get(fail=False)
                if taken is None:
                    await asyncio.sleep(0.01)
                    continue
                await taken.ack()
                seen.append(taken.body.decode())
    assert sorted(seen) == sorted(bodies)


async def test_what_cannot_be_moved_goes_back_after_half_the_consumer_timeout_at_most(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert consumer_module._HOLD_LIMIT <= CONSUMER_TIMEOUT / 2
    assert consumer_module._HOLD_LIMIT + receiver_module._RECYCLE_GRACE < CONSUMER_TIMEOUT
    monkeypatch.setattr(consumer_module, "_HOLD_LIMIT", 0.2)
    bench.registry.get("payments").force_open()
    lane = f"{bench.queue}.parked.payments"
    connection = await aio_pika.connect(bench.address)
    async with connection, connection.channel() as channel:
        await bench.send("a", "b")
        async with bench.consumer(Dependency(bench.registry), depends_on="payments") as consumer:
            await until(lambda: len(bench.happened("parked")) == 2)
            await channel.queue_delete(lane)
            await bench.send("c", "d")

            async def given_back() -> bool:
                return await bench.broker.depth(bench.queue) == 2

            await until(given_back)
            await bench.broker.prepare(consumer.topology)  # somebody makes the queue again
            await until(lambda: set(bench.happened("parked")) == {"a", "b", "c", "d"})
    await until_depth(bench.broker, lane, 2)
