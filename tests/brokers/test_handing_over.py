"""Deliveries reach us without a task of aiormq's for each, and with one if it insists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiormq.channel import Channel

from fusewire.brokers import Message, RabbitMQBroker
from fusewire.brokers.rabbitmq._workarounds.delivery_tasks import taking_at_once

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import pytest


class Tasks:
    """The part of a channel that makes tasks."""

    def __init__(self) -> None:
        self.made: list[Coroutine[Any, Any, None]] = []

    def create_task(self, work: Coroutine[Any, Any, None]) -> str:
        self.made.append(work)
        return "a task"


async def test_a_delivery_is_taken_at_once_and_other_work_gets_its_task() -> None:
    channel: Any = Tasks()
    original = channel.made
    taken: list[Any] = []
    consumer = taking_at_once(channel, taken.append)
    delivered: Any = "a delivery"

    channel.create_task(consumer(delivered)).add_done_callback(print)
    assert taken == [delivered]
    assert original == []

    async def other() -> None: ...

    work = other()
    assert channel.create_task(work) == "a task"
    assert original == [work]
    work.close()


async def test_an_aiormq_that_makes_its_tasks_otherwise_has_them_run() -> None:
    channel: Any = Tasks()
    taken: list[Any] = []
    delivered: Any = "a delivery"
    await taking_at_once(channel, taken.append)(delivered)
    assert taken == [delivered]


async def test_the_installed_aiormq_makes_no_task_for_a_delivery(
    amqp_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    create_task = Channel.create_task

    def note(self: Channel, work: Any) -> Any:
        made.append(work.__qualname__)
        return create_task(self, work)

    monkeypatch.setattr(Channel, "create_task", note)
    async with RabbitMQBroker(amqp_url, timeout=5) as broker:
        await broker.create_queue(queue_name)
        await broker.publish(queue_name, Message(body=b"a"))
        subscription = await broker.subscribe(queue_name, prefetch=1)
        delivery = await subscription.receive()
        assert delivery.message.body == b"a"
        await delivery.done()
        await subscription.release()
    assert made  # the channels' readers, for example
    assert not [name for name in made if "consumer" in name]
