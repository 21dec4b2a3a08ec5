"""A lane that nobody forwards is said to be stuck, and one that shrinks, or may not, is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.forwarding import ParkedCalls
from fusewire.forwarding import _lane_progress as progress_module
from fusewire.forwarding._lane_progress import LaneProgress
from fusewire.parking import _status_watch as watch_module
from fusewire.telemetry._consumers import STUCK, ConsumersReader
from fusewire.telemetry._metrics import Readings
from tests.forwarding.conftest import CHARGE
from tests.forwarding.shop import aio_shop, recover, trip
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.forwarding.conftest import PaymentsServer

Step = tuple[float, int | None, bool]


def said(*steps: Step) -> list[float]:
    """Return when it was said that the lane is stuck."""
    progress = LaneProgress()
    return [
        at for at, ready, closed in steps if progress.note(ready, at, closed=closed) is not None
    ]


@pytest.mark.parametrize(
    ("steps", "when"),
    [
        ([(0, 5, True), (59, 5, True), (60, 5, True), (120, 5, True)], [60]),
        ([(0, 5, True), (60, 9, True)], [60]),  # what comes in is no sign that something leaves
        ([(0, 5, True), (50, 4, True), (100, 4, True), (110, 4, True)], [110]),
        ([(0, 5, True), (50, 5, False), (60, 5, True), (110, 5, True), (120, 5, True)], [120]),
        ([(0, 5, True), (50, 0, True), (60, 5, True), (119, 5, True)], []),
        ([(0, 5, True), (50, None, True), (60, 5, True), (119, 5, True)], []),
        ([(0, 5, True), (60, 5, True), (600, 5, True), (660, 5, True)], [60, 660]),
        ([(0, 5, True), (60, 5, True), (70, 4, True), (130, 4, True)], [60, 130]),
    ],
    ids=["same", "grows", "shrinks", "opens", "empty", "unknown", "ten minutes", "again"],
)
def test_a_lane_is_stuck_that_does_not_shrink_for_a_minute(
    steps: list[Step], when: list[float]
) -> None:
    assert said(*steps) == when


def stuck_metric(calls: ParkedCalls) -> float:
    reader, readings = ConsumersReader(lambda _: True), Readings()
    end = reader.watch(calls)
    reader.read(readings)
    end()
    return readings.numbers[STUCK]["charges", "money"]


async def test_a_shop_says_that_nobody_forwards_its_lane(
    server: PaymentsServer,
    registry: BreakerRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(progress_module, "PATIENCE", 0.05)
    monkeypatch.setattr(watch_module, "_BEAT", 0.01)
    monkeypatch.setattr(watch_module, "_INTERVAL", 0.02)
    address, lanes = f"sqlite:///{tmp_path}/b.db", {"money": [CHARGE]}
    async with aio_shop(address, "charges", server, registry, forward=False, lanes=lanes) as shop:
        trip(registry)
        await shop.charge("a")
        await until(lambda: shop.calls.status().lanes["money"].ready)
        assert not shop.calls.status().lanes["money"].stuck
        registry.get(CHARGE).reset()
        await until(lambda: shop.calls.status().lanes["money"].stuck)
        assert not shop.calls.status().lanes["other"].stuck
        assert stuck_metric(shop.calls) == 1
        (record,) = [r for r in caplog.records if getattr(r, "fusewire_event", "") == "lane.stuck"]
        assert record.levelname == "WARNING"
        assert (record.fusewire_queue, record.fusewire_lane) == ("charges", "money")  # type: ignore[attr-defined]
        # A forwarder with other lanes serves a queue of the same name, and not this lane.
        async with aio_shop(address, "charges", server, BreakerRegistry()):
            assert shop.calls.status().lanes["money"].stuck
        recover(registry)
        async with aio_shop(address, "charges", server, registry, lanes=lanes):
            await until(lambda: not shop.calls.status().lanes["money"].stuck)
        assert stuck_metric(shop.calls) == 0
