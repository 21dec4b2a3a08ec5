"""A consumer and a store of calls, watched through an outage of what they call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fusewire import ParkedCalls, ParkingConsumer
from fusewire.brokers import Message, open_broker
from fusewire.parking import _status_watch as watch_module
from fusewire.telemetry.prometheus import export
from tests.support.scraping import Scrape, scrape
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from aio_pika.abc import AbstractIncomingMessage
    from prometheus_client import CollectorRegistry

    from fusewire.breaker import BreakerRegistry


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_BEAT", 0.01)
    monkeypatch.setattr(watch_module, "_INTERVAL", 0.02)


def parked(shown: Scrape, event: str) -> float | None:
    labels = {"queue": "orders", "lane": "payments", "reason": "circuit_open"}
    return shown("fusewire_messages_total", **labels, event=event)


async def test_a_consumer_through_an_outage(
    tmp_path: Path, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        pass

    address = f"sqlite:///{tmp_path}/orders.db"
    consumer = ParkingConsumer(
        address, queue="orders", handler=handler, depends_on="payments", registry=circuits
    )
    exporter = export(circuits, to=to)
    end = exporter.watch(consumer)
    shown = scrape(to)
    assert shown("fusewire_broker_connected", queue="orders") == 0
    circuits.get("payments").force_open()
    lane = {"queue": "orders", "lane": "payments"}
    async with open_broker(address) as broker:
        await broker.create_queue("orders")
        for number in range(3):
            message = Message(body=b"", message_id=f"order-{number}")
            await broker.publish("orders", message)
        async with consumer:
            work = asyncio.ensure_future(consumer.run(handle_signals=False))
            await until(lambda: scrape(to)("fusewire_lane_ready_messages", **lane) == 3)
            shown = scrape(to)
            assert shown("fusewire_broker_connected", queue="orders") == 1
            assert shown("fusewire_consumer_subscribed", queue="orders") == 1
            assert shown("fusewire_lane_blocked", **lane) == 1
            assert parked(shown, "parked") == 3
            circuits.get("payments").reset()
            await until(lambda: parked(scrape(to), "replayed") == 3)
            await until(lambda: scrape(to)("fusewire_lane_ready_messages", **lane) == 0)
            assert scrape(to)("fusewire_parked_seconds_count", **lane) == 3
            consumer.stop()
            await work
    end()
    assert scrape(to)("fusewire_broker_connected", queue="orders") is None


async def test_a_store_of_calls(
    tmp_path: Path, circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    calls = ParkedCalls(f"sqlite:///{tmp_path}/calls.db", queue="charges", registry=circuits)
    export(circuits, to=to).watch(calls)
    assert scrape(to)("fusewire_broker_connected", queue="charges") == 0
    async with calls:
        await until(lambda: scrape(to)("fusewire_dead_messages", queue="charges") == 0)
        assert scrape(to)("fusewire_broker_connected", queue="charges") == 1
