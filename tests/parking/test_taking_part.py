"""Replicas that wait for their turn: with a broker and a consumer that runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.parking import _replay_lane
from tests.support.turning_away import PAYMENTS
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


@pytest.fixture
def of_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this replica be one of a thousand, and the last of them to take part."""

    async def count(_station: Any) -> int:
        return 1000

    monkeypatch.setattr(bench.broker, "receivers", count)
    monkeypatch.setattr(_replay_lane, "turn_of", lambda *_: 0.999)


async def handle(_message: AbstractIncomingMessage) -> None:
    """Do nothing."""


@pytest.mark.usefixtures("of_many")
async def test_a_consumer_stops_at_once_though_its_circuit_is_open_and_its_turn_far_away(
    bench: Bench,
) -> None:
    breaker = bench.registry.get(PAYMENTS)
    breaker.force_open()
    await bench.send("a")
    async with asyncio.timeout(10):
        async with bench.consumer(handle, depends_on=PAYMENTS) as consumer:
            await until(lambda: bench.happened("parked") == ["a"])
            await until(lambda: PAYMENTS in consumer.replay_figures()[PAYMENTS])
