"""A consumer takes over other limits of replays while it runs."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire import ParkedCalls, SettingsError
from fusewire.brokers import Message
from fusewire.parking import ParkingConsumer, ReplayPolicy
from fusewire.parking._settings import taken_over
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parking.conftest import Bench

LANE = "payments"


@pytest.fixture(params=["sqlite"])
async def bench(bench: Bench) -> Bench:
    return bench


async def park(bench: Bench, count: int) -> None:
    lane = f"{bench.queue}.parked.{LANE}"
    await bench.broker.create_queue(lane)
    for number in range(count):
        headers: dict[str, Any] = {"fusewire-times-parked": 1, "fusewire-dependency": LANE}
        message = Message(body=b"", message_id=f"m{number}", headers=headers)
        await bench.broker.publish(lane, message)


async def handle(_: object) -> None:
    await asyncio.sleep(0)


def window(consumer: ParkingConsumer) -> float:
    return consumer.replay_figures()[LANE][LANE].window


async def test_another_rate_counts_for_what_waits_already(bench: Bench) -> None:
    await park(bench, 5)
    async with bench.consumer(handle, depends_on=LANE, replay_rate=0.001) as consumer:
        await until(lambda: bench.happened("replayed"))
        assert consumer.change_replay(ReplayPolicy(rate=500)) == ReplayPolicy(rate=500)
        await until(lambda: len(bench.happened("replayed")) == 5)


async def test_another_concurrency_widens_and_narrows_the_window(bench: Bench) -> None:
    await park(bench, 300)
    async with bench.consumer(handle, depends_on=LANE, replay_concurrency=1) as consumer:
        await until(lambda: len(bench.happened("replayed")) > 20)
        assert window(consumer) <= 1
        consumer.change_replay(ReplayPolicy(concurrency=50))
        await until(lambda: window(consumer) > 2)
        consumer.change_replay(ReplayPolicy(concurrency=2))
        await until(lambda: window(consumer) <= 2)
        await until(lambda: len(bench.happened("replayed")) == 300)


async def test_any_thread_may_change_it_at_any_time(bench: Bench) -> None:
    def plain(_: object) -> None:
        pass

    def change() -> None:
        for concurrency in range(1, 30):
            consumer.change_replay(ReplayPolicy(concurrency=concurrency))

    await park(bench, 10)
    async with bench.consumer(plain, depends_on=LANE, concurrency=3) as consumer:
        thread = threading.Thread(target=change)
        thread.start()
        await until(lambda: len(bench.happened("replayed")) == 10)
        thread.join()
        lanes = len(consumer.topology.lanes)
        await until(lambda: consumer._parts.calls.limiter.total_tokens == 3 + 29 * lanes)
    consumer.change_replay(ReplayPolicy())


async def test_before_it_runs_it_takes_over_too(bench: Bench) -> None:
    consumer = ParkingConsumer(
        bench.broker, queue=bench.queue, handler=handle, depends_on=LANE, registry=bench.registry
    )
    consumer.change_replay(ReplayPolicy(concurrency=7, rate=3))
    async with consumer:
        running = asyncio.create_task(consumer.run())
        await until(lambda: consumer.status().running)
        assert consumer._workers is not None
        part = consumer._workers.lanes[LANE].part
        assert part._settings.most == 7
        consumer.stop()
        await running


@pytest.mark.parametrize(
    ("current", "wanted", "applies"),
    [
        ({}, {"rate": 5.0, "yields": 1.5}, {"rate": 5.0, "yields": 1.5}),
        ({}, {"concurrency": 5, "scope": "cluster"}, {"concurrency": 5}),
        (
            {"scope": "cluster", "concurrency": 9},
            {"rate": 2.0, "concurrency": 4},
            {"scope": "cluster", "concurrency": 9, "rate": 2.0},
        ),
    ],
)
def test_what_stations_and_subscriptions_were_made_for_stays(
    current: dict[str, Any], wanted: dict[str, Any], applies: dict[str, Any]
) -> None:
    assert taken_over(ReplayPolicy(**current), ReplayPolicy(**wanted)) == ReplayPolicy(**applies)


def test_every_field_changes_or_stays_on_purpose() -> None:
    fields = {field.name for field in dataclasses.fields(ReplayPolicy)}
    assert fields == {"concurrency", "rate", "yields", "scope"}


async def test_stored_calls_take_over_too(tmp_path: Path) -> None:
    calls = ParkedCalls(f"sqlite:///{tmp_path}/calls.db", queue="charges")
    wanted = ReplayPolicy(rate=3, scope="cluster")
    assert calls.change_replay(wanted) == ReplayPolicy(rate=3)
    with pytest.raises(SettingsError, match="policy must be"):
        calls.change_replay(3)  # type: ignore[arg-type] # the mistake


async def test_what_is_no_policy_is_refused(bench: Bench) -> None:
    consumer = ParkingConsumer(bench.broker, queue=bench.queue, handler=handle)
    with pytest.raises(SettingsError, match="policy must be a ReplayPolicy"):
        consumer.change_replay({"rate": 3})  # type: ignore[arg-type] # the mistake
