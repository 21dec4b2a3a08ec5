"""When RabbitMQ goes away the log says so once, and once that it is back."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aio_pika
import pytest

from fusewire.brokers import Message, RabbitMQBroker
from fusewire.brokers.rabbitmq._reachability import Reachability
from fusewire.errors import BrokerUnavailableError
from fusewire.parking import ParkingConsumer
from fusewire.testing import FakeClock
from fusewire.testing.faults import FaultProxy
from tests.support.amqp import connect
from tests.support.ports import reserve_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from aio_pika.abc import AbstractIncomingMessage


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage().split(" (")[0].split(" after")[0])
        for record in caplog.records
        if record.levelno >= logging.INFO
        and record.name.startswith(("fusewire.brokers", "fusewire.parking", "aiormq", "aio_pika"))
        and " of the queues" not in f" {record.getMessage()}"
        and "not audited" not in record.getMessage()
    ]


async def test_a_consumer_with_many_lanes_says_once_that_rabbitmq_is_away_and_once_that_it_is_back(
    amqp_url: str,
    queue_name: str,
    forget_queue: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    parts = urlsplit(amqp_url)
    lanes = {f"lane-{number}": [f"dependency-{number}"] for number in range(5)}
    for lane in lanes:
        forget_queue(f"{queue_name}.parked.{lane}")

    async def handler(_message: AbstractIncomingMessage) -> None:
        """Do nothing."""

    async with FaultProxy(parts.hostname or "localhost", parts.port or 5672) as proxy:
        credentials = parts.netloc.rpartition("@")[0] or "guest:guest"
        far = parts._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}").geturl()
        async with RabbitMQBroker(amqp_url) as near, RabbitMQBroker(far) as broker:
            await near.create_queue(queue_name)
            async with ParkingConsumer(
                broker, queue=queue_name, handler=handler, lanes=lanes
            ) as consumer:
                settled: list[str] = []
                consumer.add_listener(lambda event: settled.append(event.operation_id))
                running = asyncio.create_task(consumer.run(handle_signals=False))
                await near.publish(queue_name, Message(body=b"before", message_id="a"))
                await until(lambda: settled == ["a"])
                with caplog.at_level(logging.INFO):
                    proxy.refuse()
                    await until(lambda: len(lines(caplog)) >= 1)
                    for _ in range(3):  # each lane has tried in vain some times
                        with pytest.raises(BrokerUnavailableError):
                            await broker.depth(queue_name)
                    proxy.heal()
                    await near.publish(queue_name, Message(body=b"after", message_id="b"))
                    await until(lambda: settled == ["a", "b"])
                    where = f"RabbitMQ at amqp://127.0.0.1:{proxy.port}{parts.path or '/'}"
                    assert lines(caplog) == [
                        ("WARNING", f"{where} is away"),
                        ("INFO", f"{where} is back"),
                    ]
                consumer.stop()
                await running


async def test_a_rabbitmq_that_was_silent_is_back_without_a_new_connection(
    amqp_url: str, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    parts = urlsplit(amqp_url)
    async with FaultProxy(parts.hostname or "localhost", parts.port or 5672) as proxy:
        credentials = parts.netloc.rpartition("@")[0] or "guest:guest"
        far = parts._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}").geturl()
        async with RabbitMQBroker(far, timeout=0.3) as broker:
            await broker.create_queue(queue_name)
            connections = proxy.connections
            with caplog.at_level(logging.INFO):
                proxy.stall()
                with pytest.raises(BrokerUnavailableError):
                    await broker.depth(queue_name)
                proxy.heal()
                await until(lambda: answers(broker, queue_name))
                assert proxy.connections == connections
                assert [level for level, _ in lines(caplog)] == ["WARNING", "INFO"]


async def answers(broker: RabbitMQBroker, queue: str) -> bool:
    try:
        await broker.depth(queue)
    except BrokerUnavailableError:
        return False
    return True


async def test_what_the_client_library_logs_of_other_connections_is_left_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nowhere = f"amqp://guest:guest@127.0.0.1:{reserve_port()}/"
    with caplog.at_level(logging.INFO):
        with pytest.raises(BrokerUnavailableError):
            async with RabbitMQBroker(nowhere):
                pass
        assert lines(caplog) == []  # it was raised
        with pytest.raises(aio_pika.exceptions.AMQPConnectionError):
            await connect(nowhere)
        assert [level for level, _ in lines(caplog)] == ["ERROR"]


async def test_at_debug_everything_that_the_client_library_logs_can_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(BrokerUnavailableError):
        async with RabbitMQBroker(f"amqp://guest:guest@127.0.0.1:{reserve_port()}/"):
            pass
    told = [r for r in caplog.records if "error when creating transport" in r.getMessage()]
    assert [record.levelname for record in told] == ["DEBUG"]


def test_an_outage_is_reported_once_and_only_after_rabbitmq_was_reached(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    reachability = Reachability("amqp://host/", clock)
    with caplog.at_level(logging.INFO):
        assert not reachability.lost("refused")  # the caller gets the error
        reachability.reached()
        assert caplog.messages == []
        for _ in range(3):
            assert reachability.lost("reset")
        clock.advance(12)
        for _ in range(3):
            reachability.reached()
        assert reachability.lost("reset again")
    assert caplog.messages == [
        "RabbitMQ at amqp://host/ is away (reset); it is tried again until it is back",
        "RabbitMQ at amqp://host/ is back after 12.0 s",
        "RabbitMQ at amqp://host/ is away (reset again); it is tried again until it is back",
    ]
