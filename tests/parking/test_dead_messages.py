"""What a person finds in the dead queue, seen by a client that is not ours."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from fusewire.brokers import RabbitMQBroker
from fusewire.parking import Reject, Retry
from fusewire.parking._history import History, from_headers
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

pytestmark = pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)


@pytest.fixture
async def outside(amqp_url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        yield channel


async def find(channel: aio_pika.abc.AbstractChannel, queue: str) -> AbstractIncomingMessage:
    found = await (await channel.get_queue(queue, ensure=False)).get(timeout=10)
    await found.ack()
    return found


async def test_a_dead_message_has_its_whole_history(
    bench: Bench, outside: aio_pika.abc.AbstractChannel
) -> None:
    dependency = Dependency(bench.registry)
    dependency.down = True

    async def handler(message: AbstractIncomingMessage) -> None:
        await dependency(message)

    exchange = await outside.declare_exchange(f"{bench.queue}-events", "topic", auto_delete=True)
    await (await outside.get_queue(bench.queue)).bind(exchange, "orders.#")
    began = round(time.time() * 1000)
    await exchange.publish(
        aio_pika.Message(b"an order", message_id="m-1", headers={"tenant": "blue"}), "orders.eu"
    )
    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: bench.happened("dead"))
    dead = await find(outside, f"{bench.queue}.dead")
    ended = round(time.time() * 1000)
    told: dict[str, Any] = dict(dead.headers)

    assert (dead.body, told["tenant"]) == (b"an order", "blue")
    assert told["fusewire-format"] == 1
    assert told["fusewire-reason"] == "exhausted"
    assert told["fusewire-exception"] == "ConnectionError"
    assert told["fusewire-exception-message"] == "payments is down"
    assert told["fusewire-stack"].rstrip().endswith("ConnectionError: payments is down")
    assert "in handler" in told["fusewire-stack"]
    assert told["fusewire-attempts"] == 2
    first, last = told["fusewire-first-failed-at-ms"], told["fusewire-failed-at-ms"]
    assert began <= first < last <= ended
    assert told["fusewire-exchange"] == exchange.name
    assert told["fusewire-routing-key"] == "orders.eu"
    assert told["fusewire-queue"] == bench.queue
    assert told["fusewire-dependency"] == "payments"
    assert told["fusewire-operation-id"] == told["fusewire-message-id"] == "m-1"


@pytest.mark.parametrize(
    ("error", "named"),
    [(Reject("the account is closed"), "Reject"), (KeyError("account"), "KeyError")],
    ids=["Reject", "dead_on"],
)
async def test_a_message_that_is_dead_at_once_shows_its_one_attempt(
    bench: Bench, outside: aio_pika.abc.AbstractChannel, error: Exception, named: str
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        raise error

    await bench.send("a")
    async with bench.consumer(handler, dead_on=KeyError):
        await until(lambda: bench.happened("dead"))
    told: dict[str, Any] = dict((await find(outside, f"{bench.queue}.dead")).headers)
    assert told["fusewire-reason"] == "rejected"
    assert told["fusewire-attempts"] == 1
    assert told["fusewire-failed-at-ms"] == told["fusewire-first-failed-at-ms"] > 0
    assert told["fusewire-exception"].endswith(named)
    assert "account" in told["fusewire-exception-message"]
    assert told["fusewire-exchange"] == ""
    assert told["fusewire-routing-key"] == bench.queue


async def test_a_message_that_its_handler_rejected_shows_when(
    bench: Bench, outside: aio_pika.abc.AbstractChannel
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        await message.reject()

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("dead"))
    told: dict[str, Any] = dict((await find(outside, f"{bench.queue}.dead")).headers)
    assert (told["fusewire-reason"], told["fusewire-attempts"]) == ("rejected", 1)
    assert told["fusewire-failed-at-ms"] > 0
    assert "fusewire-exception" not in told


async def test_an_expired_message_shows_what_it_was_waiting_for(
    bench: Bench, outside: aio_pika.abc.AbstractChannel
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        raise Retry("rate limited", after=60)

    await bench.send("a")
    async with bench.consumer(handler, max_age=30):
        await until(lambda: bench.happened("dead"))
    told: dict[str, Any] = dict((await find(outside, f"{bench.queue}.dead")).headers)
    assert told["fusewire-reason"] == "expired"
    assert told["fusewire-times-postponed"] == 1
    asked = told["fusewire-first-postponed-at-ms"]
    assert told["fusewire-postponed-until-ms"] == asked + 60_000
    assert "rate limited" in told["fusewire-exception-message"]


async def test_headers_written_by_the_first_version_are_read(
    bench: Bench, outside: aio_pika.abc.AbstractChannel
) -> None:
    headers: dict[str, Any] = {
        "tenant": "blue",
        "fusewire-format": 1,
        "fusewire-operation-id": "op-1",
        "fusewire-queue": "orders",
        "fusewire-dependency": "payments",
        "fusewire-reason": "failed",
        "fusewire-attempts": 2,
        "fusewire-outage-attempts": 3,
        "fusewire-times-parked": 4,
        "fusewire-first-parked-at-ms": 1_700_000_000_001,
        "fusewire-parked-at-ms": 1_700_000_000_002,
        "fusewire-waits-until-ms": 1_700_000_000_003,
        "fusewire-first-failed-at-ms": 1_700_000_000_004,
        "fusewire-failed-at-ms": 1_700_000_000_005,
        "fusewire-exception": "ValueError",
        "fusewire-exception-message": "no",
        "fusewire-stack": "Traceback",
        "fusewire-not-after-ms": 1_900_000_000_000,
        "fusewire-at-most-once": True,
        "fusewire-transfer": 1,
        "fusewire-message-id": "m-1",
        "fusewire-exchange": "events",
        "fusewire-routing-key": "orders.eu",
    }
    await outside.default_exchange.publish(aio_pika.Message(b"a", headers=headers), bench.queue)
    broker = bench.broker
    assert isinstance(broker, RabbitMQBroker)
    subscription = await broker.subscribe(bench.queue, prefetch=1)
    message = (await asyncio.wait_for(subscription.receive(), 10)).message
    await subscription.release()
    assert (message.message_id, message.exchange) == ("m-1", "events")
    assert message.routing_key == "orders.eu"
    assert from_headers(message, operation_id="other") == History(
        operation_id="op-1",
        queue="orders",
        dependency="payments",
        reason="failed",
        attempts=2,
        outage_attempts=3,
        times_parked=4,
        first_parked_at_ms=1_700_000_000_001,
        parked_at_ms=1_700_000_000_002,
        waits_until_ms=1_700_000_000_003,
        first_failed_at_ms=1_700_000_000_004,
        failed_at_ms=1_700_000_000_005,
        exception="ValueError",
        exception_message="no",
        stack="Traceback",
        not_after_ms=1_900_000_000_000,
        at_most_once=True,
        key_scheme=0,
    )
