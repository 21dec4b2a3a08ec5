"""What watches over a subscription to RabbitMQ does not stay down, whatever ends it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from fusewire.brokers.rabbitmq._subscription import RabbitMQSubscription
from fusewire.errors import BrokerUnavailableError


async def test_a_watch_that_ends_by_an_error_begins_again_after_growing_waits_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    failures = [ValueError("a defect")] * 8

    async def depth() -> int:
        if failures:
            raise failures.pop()
        return 1

    nothing: Any = None
    subscription = RabbitMQSubscription(
        "orders", nothing, nothing, 1.0, depth=depth, connection_lost=lambda _: False
    )
    acknowledger: Any = SimpleNamespace(settled=0)
    monkeypatch.setattr(asyncio, "sleep", noted)
    await asyncio.wait_for(subscription._keep_watching(acknowledger), 20)
    with pytest.raises(BrokerUnavailableError, match="nothing comes from 'orders'"):
        await subscription.receive()
    pauses = slept[1:-3:2]
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600]
    failed = [each for each in caplog.records if "the watch of 'orders' failed" in each.message]
    assert len(failed) == 8
    assert all(each.exc_info for each in failed)
