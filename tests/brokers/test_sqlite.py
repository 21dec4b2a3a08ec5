"""The embedded broker in one process: its settings, its life, cancelled calls."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import pytest

from fusewire.brokers import Message, SQLiteBroker, Topology
from fusewire.brokers.sqlite import _liveness as liveness
from fusewire.brokers.sqlite._session import Session
from fusewire.errors import (
    BrokerError,
    DeliveryLostError,
    MoveRefusedError,
    QueueNotFoundError,
    SettingsError,
    UnconfirmedError,
)
from tests.support.messages import (
    LIMIT,
    drain,
    number_of,
    numbered,
    publish_numbered,
    take,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
async def broker(path: Path) -> AsyncIterator[SQLiteBroker]:
    async with SQLiteBroker(path) as opened:
        await opened.create_queue("orders")
        await opened.prepare(Topology("orders"))
        yield opened


async def test_an_exchange_that_only_rabbitmq_has_is_ignored(broker: SQLiteBroker) -> None:
    topology = Topology("orders", options={"exchange": "parking"})
    await broker.prepare(topology)

    await broker.publish(topology.dead, numbered(1))

    assert [number_of(message) for message in await drain(broker, topology.dead, 1)] == [1]


# -- settings and life -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"lease": 0}, "lease must be .*, got 0"),
        ({"lease": float("nan")}, "lease must be .*, got nan"),
        ({"lease": float("inf")}, "lease must be .*, got inf"),
        ({"poll_interval": -1}, "poll_interval must be .*, got -1"),
        ({"lease": 1.0, "poll_interval": 0.5}, r"poll_interval must be .*0\.25 s, got 0\.5"),
        ({"path": ""}, "path"),
    ],
)
def test_a_setting_that_cannot_be_right_is_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        SQLiteBroker(**{"path": "some.db", **settings})  # type: ignore[arg-type]  # any setting


async def test_a_prefetch_or_a_queue_of_nothing_is_refused(broker: SQLiteBroker) -> None:
    with pytest.raises(SettingsError, match=r"prefetch must be .*, got 0"):
        await broker.subscribe("orders", prefetch=0)
    with pytest.raises(SettingsError, match="queue"):
        await broker.create_queue("")
    with pytest.raises(SettingsError, match="queue must be a string that UTF-8 can encode"):
        await broker.create_queue("\ud800")
    with pytest.raises(QueueNotFoundError):
        await broker.depth("\ud800")
    with pytest.raises(MoveRefusedError):
        await broker.publish("\ud800", numbered(1))


async def test_it_is_used_inside_async_with_only(path: Path) -> None:
    broker = SQLiteBroker(path)
    with pytest.raises(BrokerError, match="async with"):
        await broker.depth("orders")
    async with broker:
        await broker.create_queue("orders")
        with pytest.raises(BrokerError, match="open already"):
            await broker.__aenter__()
    with pytest.raises(BrokerError, match="async with"):
        await broker.depth("orders")


async def test_what_nobody_foresaw_fails_what_was_asked_and_nothing_after_it(
    broker: SQLiteBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def is_said() -> bool:
        return caplog.text.count("unexpected error") > 1

    with monkeypatch.context() as broken:
        broken.setattr(Session, "run", lambda *_: 1 / 0)
        broken.setattr(Session, "look", lambda *_: 1 / 0)
        with pytest.raises(UnconfirmedError, match="the log says why"):
            await broker.publish("orders", numbered(1))
        await until(is_said)

    await broker.publish("orders", numbered(2))
    assert await drain(broker, "orders", 1) == [numbered(2)]
    assert "ZeroDivisionError" in caplog.text


async def test_what_fails_in_closing_keeps_nobody_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    close = Session.close

    def close_and_fail(self: Session) -> None:
        close(self)
        raise ZeroDivisionError

    monkeypatch.setattr(Session, "close", close_and_fail)
    with anyio.fail_after(LIMIT):
        async with SQLiteBroker(path):
            pass
    assert "ZeroDivisionError" in caplog.text


def test_the_thread_ends_when_the_event_loop_is_closed_and_the_broker_is_not(path: Path) -> None:
    asyncio.run(SQLiteBroker(path).__aenter__())

    [thread] = [each for each in threading.enumerate() if each.name == f"fusewire {path}"]
    thread.join(LIMIT)
    assert not thread.is_alive()


async def test_it_can_be_entered_again(path: Path) -> None:
    broker = SQLiteBroker(path)
    async with broker:
        await broker.create_queue("orders")
    async with broker:
        assert await broker.depth("orders") == 0


async def test_leaving_it_ends_its_thread(path: Path) -> None:
    async with SQLiteBroker(path) as broker:
        [thread] = [each for each in threading.enumerate() if each.name == f"fusewire {path}"]
        await broker.create_queue("orders")
    thread.join(10)
    assert not thread.is_alive()


async def test_it_says_that_it_was_forked(
    broker: SQLiteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: 1)
        with pytest.raises(BrokerError, match="fork"):
            await broker.depth("orders")


async def test_a_message_of_this_broker_is_received_without_polling(path: Path) -> None:
    async with SQLiteBroker(path, lease=40_000, poll_interval=10_000) as broker:
        await broker.create_queue("orders")
        await broker.create_queue("other")
        orders = await broker.subscribe("orders", prefetch=1)
        other = await broker.subscribe("other", prefetch=1)
        waiting = [asyncio.create_task(take(each, 1)) for each in (orders, other)]
        await broker.depth("orders")  # long enough for the tasks to wait

        await broker.publish("orders", numbered(1))
        [delivery] = await waiting[0]
        await delivery.move("other", delivery.message)
        assert (await waiting[1])[0].message == numbered(1)


async def test_a_queue_that_goes_away_is_named_to_its_receivers(
    path: Path, broker: SQLiteBroker
) -> None:
    subscription = await broker.subscribe("orders", prefetch=1)
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("DELETE FROM queues WHERE name = 'orders'")

    with pytest.raises(QueueNotFoundError, match="orders"):
        await take(subscription, 1)


async def test_what_an_older_release_has_delayed_is_seen_and_returns(
    path: Path, broker: SQLiteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(
            "INSERT INTO queues (name, delay_ms, returns_to)"
            " SELECT 'orders.delay.5000', 5000, id FROM queues WHERE name = 'orders'"
        )
    now = liveness.steady()
    monkeypatch.setattr(liveness, "steady", lambda: now)
    await broker.publish("orders.delay.5000", numbered(1))  # as an older release does

    assert await broker.peek(Topology("orders").delayed, limit=5) == [numbered(1)]
    assert await broker.depth("orders") == 0
    now += 5.1

    assert await drain(broker, "orders", 1) == [numbered(1)]
    assert await broker.depth(Topology("orders").delayed) == 0


async def test_any_delay_is_kept_and_not_only_those_of_the_topology(
    broker: SQLiteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = liveness.steady()
    monkeypatch.setattr(liveness, "steady", lambda: now)
    await broker.publish("orders", numbered(1), delay=7.3)

    now += 7.2
    assert await broker.depth("orders") == 0
    now += 0.2

    assert await drain(broker, "orders", 1) == [numbered(1)]


async def test_only_a_source_takes_a_delay_and_what_is_delayed_takes_nothing(
    broker: SQLiteBroker,
) -> None:
    topology = Topology("orders")
    with pytest.raises(ValueError, match=r"only a source .* orders\.dead is none"):
        await broker.publish(topology.dead, numbered(1), delay=1)
    await broker.publish("orders", numbered(1), delay=60)
    with pytest.raises(MoveRefusedError, match=r"orders\.delayed"):
        await broker.publish(topology.delayed, numbered(2))


async def test_delayed_messages_return_in_the_order_of_their_times(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology = Topology("orders", delays=(0.001, 0.002))
    now = 1000.0
    monkeypatch.setattr(liveness, "steady", lambda: now)
    async with SQLiteBroker(path, clock=lambda: now) as broker:
        await broker.create_queue("orders")
        await broker.prepare(topology)
        await broker.publish(topology.source, numbered(2), delay=0.002)
        await broker.publish(topology.source, numbered(0), delay=0.001)
        await broker.publish(topology.source, numbered(1), delay=0.001)
        await broker.publish("orders", numbered(9))
        assert await broker.depth("orders") == 1

        now = 1001.0

        assert [number_of(each) for each in await drain(broker, "orders", 4)] == [9, 0, 1, 2]


# -- what was prefetched and what was received -----------------------------------------------------


async def test_what_nobody_received_is_not_redelivered_after_a_release(
    broker: SQLiteBroker,
) -> None:
    await publish_numbered(broker, "orders", range(4))
    subscription = await broker.subscribe("orders", prefetch=4)
    await take(subscription, 2)

    await subscription.release()

    deliveries = await take(await broker.subscribe("orders", prefetch=4), 4)
    assert [delivery.redelivered for delivery in deliveries] == [True, True, False, False]


async def test_settling_twice_is_an_error_and_changes_nothing(broker: SQLiteBroker) -> None:
    await broker.publish("orders", numbered(1))
    [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)
    await delivery.done()

    with pytest.raises(DeliveryLostError):
        await delivery.done()
    with pytest.raises(DeliveryLostError):
        await delivery.move("orders.dead", delivery.message)

    assert await broker.depth("orders.dead") == 0


# -- cancelled calls -------------------------------------------------------------------------------


async def test_cancelled_moves_and_publishes_leave_each_message_in_one_place(
    broker: SQLiteBroker,
) -> None:
    chance = random.Random(3)
    await publish_numbered(broker, "orders", range(60))
    subscription = await broker.subscribe("orders", prefetch=60)
    deliveries = await take(subscription, 60)

    async def cancelled(number: int) -> None:
        with anyio.CancelScope() as scope:
            if chance.random() < 0.5:
                scope.cancel()
            else:
                asyncio.get_running_loop().call_later(chance.random() / 200, scope.cancel)
            await deliveries[number].move("orders.dead", numbered(number))

    await asyncio.gather(*(cancelled(number) for number in range(60)))
    await subscription.release()

    found: Counter[int] = Counter()
    for queue in ("orders", "orders.dead"):
        found.update(number_of(message) for message in await broker.peek(queue, limit=100))
    assert found == Counter(range(60))


async def test_a_cancelled_call_leaves_the_broker_usable(broker: SQLiteBroker) -> None:
    for _ in range(50):
        task = asyncio.create_task(broker.publish("orders", numbered(1)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    await broker.publish("orders.dead", numbered(2))
    assert await drain(broker, "orders.dead", 1) == [numbered(2)]


async def test_a_message_that_cannot_be_stored_fails_alone(broker: SQLiteBroker) -> None:
    unstorable = Message(body=b"", headers={"when": object()})  # type: ignore[dict-item]  # on purpose

    results = await asyncio.gather(
        broker.publish("orders", numbered(1)),
        broker.publish("orders", unstorable),
        broker.publish("orders", numbered(2)),
        return_exceptions=True,
    )

    assert isinstance(results[1], TypeError)
    assert "headers.when" in str(results[1])
    assert await drain(broker, "orders", 2) == [numbered(1), numbered(2)]


async def test_a_queue_of_the_users_may_have_the_name_of_the_delayed(broker: SQLiteBroker) -> None:
    await broker.create_queue("orders.delayed")
    await _keeps_apart(broker)


async def test_a_queue_that_gets_the_name_of_the_delayed_later_is_the_users(
    broker: SQLiteBroker,
) -> None:
    await broker.publish("orders", numbered(0), delay=3600)
    await broker.create_queue("orders.delayed")
    await _keeps_apart(broker)
    assert await broker.depth(Topology("orders").delayed) == 2


async def _keeps_apart(broker: SQLiteBroker) -> None:
    await broker.publish("orders", numbered(1), delay=3600)
    await broker.publish("orders.delayed", numbered(2))
    await broker.publish("orders", numbered(3), delay=0.01)
    for queue, number in (("orders.delayed", 2), ("orders", 3)):
        subscription = await broker.subscribe(queue, prefetch=10)
        [delivery] = await take(subscription, 1)
        assert number_of(delivery.message) == number
        await delivery.done()
        assert await broker.depth(queue) == 0
        await subscription.release()
