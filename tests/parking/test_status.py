"""How a consumer stands is read at any time, from any thread, and is true."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message, RabbitMQBroker
from fusewire.errors import BrokerUnavailableError
from fusewire.parking import ConsumerStatus, LaneStatus, ParkingConsumer
from fusewire.parking import _status_watch as watch_module
from tests.support.dependency import Dependency
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

SQLITE = pytest.mark.parametrize("bench", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_BEAT", 0.01)
    monkeypatch.setattr(watch_module, "_INTERVAL", 0.02)


def ready(lane: LaneStatus) -> int | None:
    return None if lane.ready is None else lane.ready.ready


def test_nothing_is_known_of_a_consumer_that_was_not_entered() -> None:
    consumer = ParkingConsumer(
        "sqlite:///unused.db", queue="orders", handler=print, depends_on="payments"
    )
    status = consumer.status()
    assert (status.queue, status.running, status.connected) == ("orders", False, False)
    assert not status.subscribed
    assert (status.last_delivery_at, status.loop_turned_at, status.paused_by) == (None, None, None)
    assert (status.ready, status.delayed, status.dead, status.in_flight) == (None, None, None, 0)
    assert set(status.lanes) == {"payments", "other"}
    assert status.lanes["payments"] == LaneStatus(
        subscribed=False,
        in_flight=0,
        ready=None,
        head_parked_at=None,
        empty_at=None,
        waits_for=(),
        replays={},
    )


async def test_a_consumer_at_work(bench: Bench) -> None:
    release = asyncio.Event()

    async def handler(_: AbstractIncomingMessage) -> None:
        await release.wait()

    began = time.time()
    async with bench.consumer(handler, concurrency=1) as consumer:
        await until(lambda: consumer.status().subscribed)
        assert consumer.status().last_delivery_at is None
        await bench.send("a", "b")
        await until(lambda: consumer.status().in_flight == 1)

        def one_waits() -> bool:
            found = consumer.status().ready
            return found is not None and found.ready == 1

        await until(one_waits)
        status = await asyncio.to_thread(consumer.status)
        assert status.running
        assert status.connected
        assert status.ready is not None
        assert status.last_delivery_at is not None
        assert status.loop_turned_at is not None
        # The ends of a wait are read from two clocks, which may differ a little.
        for seen in (status.last_delivery_at, status.loop_turned_at, status.ready.read_at):
            assert began - 0.1 < seen <= status.at <= time.time() + 0.1
        release.set()
        await until(lambda: len(bench.happened("handled")) == 2)
        await until(lambda: consumer.status().in_flight == 0)
    status = consumer.status()
    assert (status.running, status.subscribed, status.connected) == (False, False, False)


async def test_a_lane_through_an_outage(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    seen: list[ConsumerStatus] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        seen.append(consumer.status())
        await dependency(message)

    async with bench.consumer(handler, depends_on="payments") as consumer:
        await until(lambda: ready(consumer.status().lanes["payments"]) == 0)
        await bench.send("a", "b", "c")
        await until(lambda: ready(consumer.status().lanes["payments"]) == 3)
        lane = consumer.status().lanes["payments"]
        assert (lane.waits_for, lane.in_flight, lane.subscribed) == (("payments",), 0, False)
        assert lane.head_parked_at is None
        assert lane.empty_at is not None
        dependency.recover()
        await until(lambda: len(bench.happened("replayed")) == 3)
        await until(lambda: ready(consumer.status().lanes["payments"]) == 0)
        # It is empty when the broker was asked after the last one was settled.
        await until(lambda: consumer.status().lanes["payments"].head_parked_at is None)
        end = consumer.status().lanes["payments"]
    during = seen[0].lanes["payments"]
    assert during.in_flight >= 1
    assert during.subscribed
    assert during.waits_for == ()
    assert during.head_parked_at is not None
    first = bench.events[0].first_parked_at
    assert first is not None
    assert during.head_parked_at == pytest.approx(first, abs=0.5)
    assert "payments" in during.replays
    assert end.empty_at is not None


@SQLITE
async def test_a_lane_shows_what_messages_pause_for(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        raise ValueError("all alike")

    bodies = [f"m{number}" for number in range(10)]
    await bench.send(*bodies)
    async with bench.consumer(handler, depends_on="payments", guard_with="payments") as consumer:
        bench.registry.get("payments").disable()
        await until(lambda: consumer.status().lanes["payments"].waits_for == ("payments",))


async def test_a_consumer_that_keeps_its_order_says_what_it_pauses_for(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    await bench.send("a")
    async with bench.consumer(dependency, depends_on="payments", on_open="pause") as consumer:
        await until(lambda: consumer.status().paused_by == "payments")
        status = consumer.status()
        assert (status.subscribed, status.connected) == (False, True)
        dependency.recover()
        await until(lambda: bench.happened("handled") == ["a"])
        await until(lambda: consumer.status().paused_by is None)
        assert consumer.status().subscribed


@SQLITE
async def test_a_broker_that_is_away_is_not_connected_until_it_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> int:
        raise BrokerUnavailableError("away")

    async with bench.consumer(lambda message: None) as consumer:
        await until(lambda: consumer.status().ready is not None)
        before = consumer.status()
        with monkeypatch.context() as patch:
            patch.setattr(type(bench.broker), "depth", away)
            await until(lambda: not consumer.status().connected)
            status = consumer.status()
            assert status.ready is None
            assert status.lanes["other"].ready is None
            assert status.connection_changed_at > before.connection_changed_at
        await until(lambda: consumer.status().connected)
        await until(lambda: consumer.status().ready is not None)


@SQLITE
async def test_a_loop_that_does_not_turn_is_seen_from_another_thread(bench: Bench) -> None:
    stuck, seen = threading.Event(), threading.Event()

    def look(consumer: ParkingConsumer) -> None:
        stuck.wait(20)
        until_sync(lambda: _turned_ago(consumer.status()) > 0.2)
        seen.set()

    async def handler(_: AbstractIncomingMessage) -> None:
        stuck.set()
        assert seen.wait(20)  # it holds up its event loop

    async with bench.consumer(handler) as consumer:
        looking = threading.Thread(target=look, args=[consumer])
        looking.start()
        await bench.send("a")
        await until(lambda: bench.happened("handled") == ["a"])
        looking.join()
        await until(lambda: _turned_ago(consumer.status()) < 0.2)


@SQLITE
async def test_a_consumer_that_ends_its_last_handlers_does_not_seem_stuck(bench: Bench) -> None:
    began, release = asyncio.Event(), asyncio.Event()

    async def handler(_: AbstractIncomingMessage) -> None:
        began.set()
        await release.wait()

    async with bench.consumer(handler) as consumer:
        await bench.send("a")
        await began.wait()
        assert consumer.status().loop_turned_at is not None
        consumer.stop()
        await until(lambda: consumer.status().loop_turned_at is None)
        assert consumer.status().running
        release.set()


def _turned_ago(status: ConsumerStatus) -> float:
    return 0.0 if status.loop_turned_at is None else status.at - status.loop_turned_at


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
async def test_who_waits_for_its_turn_says_nothing_of_a_broker_that_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # RabbitMQ tells no consumer of such a queue that another is the active one.
    monkeypatch.setattr("fusewire.brokers.rabbitmq._subscription._LOOK", 0.3)
    subscribed: list[str] = []
    subscribe = RabbitMQBroker.subscribe

    async def note(self: RabbitMQBroker, station: Any, *, prefetch: int) -> Any:
        subscribed.append(str(station))
        return await subscribe(self, station, prefetch=prefetch)

    monkeypatch.setattr(RabbitMQBroker, "subscribe", note)
    release = asyncio.Event()

    async def handler(_: AbstractIncomingMessage) -> None:
        await release.wait()

    options: Any = {"depends_on": "payments", "replay_scope": "cluster", "replay_concurrency": 1}
    lane = f"{bench.queue}.parked.payments"
    async with bench.consumer(handler, **options) as active:
        for number in range(3):
            message = Message(body=b"x", headers={"fusewire-dependency": "payments"})
            await bench.broker.publish(lane, dataclasses.replace(message, message_id=str(number)))
        await until(lambda: active.status().lanes["payments"].in_flight == 1)
        async with bench.consumer(handler, **options) as waiting:
            await until(lambda: subscribed.count(lane) >= 3)
            assert waiting.status().connected
            assert active.status().connected
            release.set()
            await until(lambda: len(bench.happened("handled")) == 3)
    assert "does not answer" not in caplog.text
    assert "nothing comes" not in caplog.text
