"""Verdicts on real consumers: a broker that goes and comes back, an event loop that hangs."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fusewire import BreakerRegistry, ParkingConsumer
from fusewire.brokers import Message, open_broker
from fusewire.parking import _status_watch as watch_module
from fusewire.telemetry.health import Health
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest
    from aio_pika.abc import AbstractIncomingMessage

    from tests.support.rabbitmq import OwnRabbitMQ


@asynccontextmanager
async def consuming(address: str, handler: Any) -> AsyncIterator[ParkingConsumer]:
    """Run a consumer of ``orders`` for the block."""
    async with open_broker(address) as broker:
        await broker.create_queue("orders")
    consumer = ParkingConsumer(address, queue="orders", handler=handler, registry=BreakerRegistry())
    async with consumer:
        running = asyncio.create_task(consumer.run(handle_signals=False))
        try:
            yield consumer
        finally:
            consumer.stop()
            await asyncio.wait_for(running, 60)


async def test_a_broker_that_is_away_fails_readiness_and_never_liveness(
    private_rabbitmq: OwnRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_INTERVAL", 0.1)
    monkeypatch.setattr(watch_module, "_BEAT", 0.1)

    async def handler(_: AbstractIncomingMessage) -> None:
        """Do nothing."""

    async with consuming(private_rabbitmq.url, handler) as consumer:
        health = Health(
            BreakerRegistry(), consumers=[consumer], disconnected_after=0.5, stuck_after=30
        )
        await until(lambda: health.readiness().passes)
        await asyncio.to_thread(private_rabbitmq.kill)

        def not_ready() -> bool:
            assert health.liveness().passes
            return not health.readiness().passes

        await until(not_ready)
        (reason,) = health.readiness().reasons
        assert reason.startswith("the consumer of 'orders' has not been connected for ")
        await asyncio.to_thread(private_rabbitmq.start)
        await until(lambda: health.readiness().passes, limit=60)
    assert health.readiness().reasons == ("the consumer of 'orders' does not run",)
    assert health.liveness().passes


async def test_an_event_loop_that_hangs_fails_liveness_until_it_turns_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_BEAT", 0.1)
    address = f"sqlite:///{tmp_path}/broker.db"
    hangs, seen = threading.Event(), threading.Event()

    async def handler(_: AbstractIncomingMessage) -> None:
        hangs.set()
        seen.wait(30)  # it holds up its event loop

    async with consuming(address, handler) as consumer:
        health = Health(BreakerRegistry(), consumers=[consumer], stuck_after=2)
        await until(lambda: health.readiness().passes)
        assert health.liveness().passes

        def look() -> None:
            hangs.wait(30)
            try:
                until_sync(lambda: not health.liveness().passes)
            finally:
                seen.set()

        looking = asyncio.create_task(asyncio.to_thread(look))
        async with open_broker(address) as broker:
            await broker.publish("orders", Message(body=b"", message_id="1", routing_key="orders"))
        await looking
        await until(lambda: health.liveness().passes)


async def test_a_consumer_that_drains_is_not_ready_and_lives(tmp_path: Path) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def handler(_: AbstractIncomingMessage) -> None:
        begun.set()
        await release.wait()

    address = f"sqlite:///{tmp_path}/broker.db"
    async with consuming(address, handler) as consumer:
        health = Health(BreakerRegistry(), consumers=[consumer])
        async with open_broker(address) as broker:
            await broker.publish("orders", Message(body=b"", message_id="1", routing_key="orders"))
        await begun.wait()
        assert health.readiness().passes
        consumer.stop()
        await until(lambda: not health.readiness().passes)
        assert health.liveness().passes
        assert consumer.status().running
        release.set()
