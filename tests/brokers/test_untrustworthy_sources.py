"""A source queue that loses what it gets is refused, with what it is and what to do."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from fusewire.brokers import Message, RabbitMQBroker, Topology
from fusewire.errors import BrokerError, BrokerUnavailableError, SettingsError
from fusewire.parking import ParkingConsumer
from tests.support.messages import numbered, publish_numbered, take, until_depth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[RabbitMQBroker]:
    async with RabbitMQBroker(amqp_url, timeout=5) as broker:
        yield broker


@pytest.fixture
async def outside(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(amqp_url) as connection:
        yield await connection.channel()


async def handler(_message: AbstractIncomingMessage) -> None:
    raise AssertionError("nothing is to be handled")


async def test_a_stream_is_refused_when_a_consumer_is_entered(
    amqp_url: str, outside: AbstractChannel, queue_name: str
) -> None:
    await outside.declare_queue(queue_name, durable=True, arguments={"x-queue-type": "stream"})
    with pytest.raises(BrokerError, match=r"is a stream.*quorum queue"):
        async with ParkingConsumer(amqp_url, queue=queue_name, handler=handler):
            pass


async def test_a_queue_that_was_replaced_by_a_stream_is_not_consumed_any_more(
    broker: RabbitMQBroker, outside: AbstractChannel, queue_name: str
) -> None:
    await broker.create_queue(queue_name)
    await broker.prepare(Topology(queue_name))
    await outside.queue_delete(queue_name)
    await outside.declare_queue(queue_name, durable=True, arguments={"x-queue-type": "stream"})
    with pytest.raises(BrokerError, match="is a stream"):
        await broker.subscribe(queue_name, prefetch=1)


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_to_ask_for_a_queues_type_takes_no_message_and_returns_none(
    broker: RabbitMQBroker,
    outside: AbstractChannel,
    queue_name: str,
    forget_queue: Callable[[str], None],
    kind: str,
) -> None:
    queue = f"{queue_name}.{kind}"
    forget_queue(queue)
    await outside.declare_queue(queue, durable=True, arguments={"x-queue-type": kind})
    await publish_numbered(broker, queue, range(1))
    for _ in range(3):
        assert await broker._declarer.type_of(queue) == kind
    await until_depth(broker, queue, 1)
    subscription = await broker.subscribe(queue, prefetch=1)
    [delivery] = await take(subscription, 1)
    assert delivery.message == numbered(0)
    assert (delivery.redelivered, delivery.returned) == (False, 0)
    await subscription.release()


async def test_a_queue_with_one_active_consumer_is_asked_beside_it(
    broker: RabbitMQBroker,
    outside: AbstractChannel,
    queue_name: str,
    forget_queue: Callable[[str], None],
) -> None:
    queue = f"{queue_name}.single"
    forget_queue(queue)
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    await outside.declare_queue(queue, durable=True, arguments=arguments)
    subscription = await broker.subscribe(queue, prefetch=1)
    assert await broker._declarer.type_of(queue) == "quorum"
    await broker.publish(queue, Message(body=b"a"))
    [delivery] = await take(subscription, 1)
    await delivery.done()
    await subscription.release()


async def test_a_queue_that_is_exclusive_to_another_connection_is_named_as_such(
    broker: RabbitMQBroker, outside: AbstractChannel
) -> None:
    name = f"test-{secrets.token_hex(5)}"
    await outside.declare_queue(name, exclusive=True)
    with pytest.raises(BrokerError, match=r"exclusive to the connection.*declare it durable"):
        await broker.prepare(Topology(name))
    with pytest.raises(BrokerError, match=r"exclusive to the connection.*declare it durable"):
        await broker.subscribe(name, prefetch=1)


async def test_a_name_that_rabbitmq_gave_is_refused_with_what_it_means(
    broker: RabbitMQBroker, outside: AbstractChannel
) -> None:
    declared = await outside.declare_queue("", durable=True)
    with pytest.raises(SettingsError, match=r"amq\..*without a name.*give it a name"):
        await broker.prepare(Topology(declared.name))
    await outside.queue_delete(declared.name)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("/", "nowhere"), "the virtual host 'nowhere' does not exist.*NOT_ALLOWED"),
        (("guest:guest@", "guest:wrong@"), "the user or the password is wrong.*ACCESS_REFUSED"),
    ],
    ids=["virtual host", "password"],
)
async def test_what_rabbitmq_refuses_is_reported_in_its_words_and_in_one_traceback(
    amqp_url: str, changed: tuple[str, str], named: str
) -> None:
    before, after = changed
    start, end = amqp_url.rsplit("/", 1)
    url = f"{start}/{after}" if before == "/" else f"{start.replace(before, after)}/{end}"
    if url == amqp_url:
        pytest.skip("the address that is given names other credentials")
    with pytest.raises(BrokerUnavailableError, match=named) as caught:
        async with RabbitMQBroker(url):
            pass
    assert "Expected one of" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
