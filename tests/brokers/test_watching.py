"""What watches over a subscription to RabbitMQ does not stay down, whatever ends it."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from fusewire.brokers.rabbitmq import _subscription
from fusewire.brokers.rabbitmq._subscription import RabbitMQSubscription
from fusewire.errors import BrokerError
from fusewire.parking._status_watch import BrokerContact
from tests.support.waiting import until


class Channel:
    """A channel on which a subscription starts, and nothing comes."""

    connection = None

    def __init__(self) -> None:
        self.close_callbacks: set[Any] = set()
        self.on_consumer_cancel_callbacks: set[Any] = set()

    async def get_underlay_channel(self) -> Any:
        return self

    async def basic_qos(self, **_: Any) -> None: ...

    async def basic_consume(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(consumer_tag="tag")

    async def basic_cancel(self, *_: Any, **__: Any) -> None: ...

    def create_task(self, work: Any) -> Any:
        return asyncio.ensure_future(work)

    async def close(self) -> None: ...


@pytest.fixture(params=["an error", "a cancellation"])
def strike(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(_subscription, "_LOOK", 0.01)
    monkeypatch.setattr(_subscription, "_LONGEST_WAIT", 0.02)
    return str(request.param)


async def test_a_watch_goes_on_after_what_ends_it_and_says_so(
    strike: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    async def depth() -> int:
        nonlocal asked
        asked += 1
        if asked <= 3:
            if strike == "an error":
                raise ValueError("a defect")
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        return 1

    channel: Any = Channel()
    subscription = RabbitMQSubscription(
        "orders", channel, channel, 1.0, depth=depth, silent=set(), connection_lost=lambda _: False
    )
    await subscription.start(1)
    with pytest.raises(BrokerError, match="nothing comes from 'orders'"):
        await asyncio.wait_for(subscription.receive(), 20)
    said = [each for each in caplog.records if "the watch of 'orders'" in each.message]
    assert len(said) == 3
    assert all(each.exc_info and "started again" in each.message for each in said)


async def test_a_watch_ends_with_its_subscription(strike: str) -> None:
    async def depth() -> int:
        return 0

    channel: Any = Channel()
    subscription = RabbitMQSubscription(
        "orders", channel, channel, 1.0, depth=depth, silent=set(), connection_lost=lambda _: False
    )
    await subscription.start(1)
    await subscription.release()

    def watches() -> list[str]:
        return [each.get_name() for each in asyncio.all_tasks() if "watch" in each.get_name()]

    await until(lambda: watches() == [])


async def test_a_queue_that_gives_nothing_any_more_is_no_broker_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_subscription, "_LOOK", 0.01)
    caplog.set_level(logging.DEBUG, "fusewire.brokers.rabbitmq")

    async def depth() -> int:
        return 1

    silent = {"lane"}
    for queue in ("orders", "orders", "lane"):
        channel: Any = Channel()
        subscription = RabbitMQSubscription(
            queue, channel, channel, 1.0, depth=depth, silent=silent, connection_lost=bool
        )
        await subscription.start(1)
        with pytest.raises(BrokerError) as raised:
            await asyncio.wait_for(subscription.receive(), 20)
        contact = BrokerContact(queue)
        contact.answered(contact.failures)
        contact.failed(raised.value)
        assert contact.answers
        assert raised.value.logged
    said = [one.levelno for one in caplog.records if "nothing comes" in one.message]
    assert said == [logging.INFO, logging.DEBUG, logging.DEBUG]
