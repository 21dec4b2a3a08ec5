"""The embedded broker's leases and delays when somebody sets the clock."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import pytest

from fusewire.brokers import SQLiteBroker, Topology
from fusewire.brokers.sqlite import _liveness as liveness
from tests.support.embedded_leases import Clock, SetClock, Silent
from tests.support.messages import (
    drain,
    numbered,
    take,
)

if TYPE_CHECKING:
    from pathlib import Path


STEPS = [-86_400.0, -120.0, 120.0, 86_400.0]  # seconds by which somebody sets the clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.mark.parametrize("step", STEPS)
async def test_setting_the_clock_takes_no_message_from_a_broker_that_lives(
    path: Path, step: float
) -> None:
    clock = SetClock()
    one = SQLiteBroker(path, lease=50, poll_interval=0.01, clock=clock)
    two = SQLiteBroker(path, lease=50, poll_interval=0.01, clock=clock)
    async with one, two:
        await one.create_queue("orders")
        await one.publish("orders", numbered(1))
        [delivery] = await take(await one.subscribe("orders", prefetch=1), 1)
        waiting = await two.subscribe("orders", prefetch=1)

        clock.step = step

        with anyio.move_on_after(0.3):  # many looks of the other's
            pytest.fail(f"taken from a broker that lives: {await waiting.receive()}")
        await delivery.done()
        assert await two.depth("orders") == 0


@pytest.mark.parametrize("step", STEPS)
async def test_setting_the_clock_lets_a_lease_end_at_its_time(
    path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall, steady = Clock(), Clock()
    monkeypatch.setattr(liveness, "steady", steady)
    async with SQLiteBroker(path, lease=5000, poll_interval=0.01, clock=wall) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
        silent = Silent(path, wall, lease=50)
        with closing(silent.session):
            silent.claim()
            subscription = await broker.subscribe("orders", prefetch=1)
            wall.now += step
            steady.now += 49.9
            with anyio.move_on_after(0.2):
                pytest.fail(f"too early: {await subscription.receive()}")
            steady.now += 0.2

            [delivery] = await take(subscription, 1)

    assert delivery.message == numbered(1)


@pytest.mark.parametrize("step", STEPS)
async def test_setting_the_clock_shortens_and_lengthens_no_delay(
    path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall, steady = Clock(), Clock()
    monkeypatch.setattr(liveness, "steady", steady)
    topology = Topology("orders", delays=(30.0,))
    async with SQLiteBroker(path, clock=wall) as broker:
        await broker.create_queue("orders")
        await broker.prepare(topology)
        await broker.publish(topology.source, numbered(1), delay=30.0)
        wall.now += step

        steady.now += 29.9
        assert await broker.depth("orders") == 0
        steady.now += 0.2

        assert await drain(broker, "orders", 1) == [numbered(1)]


async def test_a_delay_is_corrected_for_a_release_that_reads_the_time_of_day_alone(
    path: Path,
) -> None:
    clock = SetClock()
    topology = Topology("orders", delays=(60.0,))
    async with SQLiteBroker(path, clock=clock) as broker:
        await broker.create_queue("orders")
        await broker.prepare(topology)
        await broker.publish(topology.source, numbered(1), delay=60.0)
        clock.step = 120

        assert await broker.depth("orders") == 0

        with closing(sqlite3.connect(path)) as reader:
            [(due,)] = reader.execute("SELECT due FROM messages").fetchall()
        assert clock() + 30 < due <= clock() + 60


async def test_what_another_boot_left_goes_by_the_time_of_day(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall, steady = Clock(), Clock()
    topology = Topology("orders", delays=(30.0,))
    with monkeypatch.context() as boot:
        boot.setattr(liveness, "steady", lambda: 1e9)
        boot.setattr(liveness, "clock", lambda: "an earlier boot")
        boot.setattr(liveness, "home", lambda: "an earlier boot")
        async with SQLiteBroker(path, clock=wall) as broker:
            await broker.create_queue("orders")
            await broker.prepare(topology)
            await broker.publish("orders", numbered(1))
            await broker.publish(topology.source, numbered(2), delay=30.0)
        silent = Silent(path, wall, lease=50)
        silent.claim()
        silent.session.close()
    monkeypatch.setattr(liveness, "steady", steady)

    async with SQLiteBroker(path, clock=wall) as broker:
        assert await broker.depth("orders") == 0
        wall.now += 30.1
        assert await broker.depth("orders") == 1
        wall.now += 20
        assert await broker.depth("orders") == 2
