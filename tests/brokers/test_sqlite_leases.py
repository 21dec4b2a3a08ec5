"""The embedded broker's leases and delays, and the clocks behind them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import pytest

from fusewire.brokers import SQLiteBroker
from fusewire.brokers.sqlite import _liveness as liveness
from fusewire.brokers.sqlite._jobs import Job
from fusewire.brokers.sqlite._session import Session
from fusewire.errors import BrokerUnavailableError, DeliveryLostError
from tests.support.embedded_leases import Clock, SetClock, Silent
from tests.support.embedded_process import start
from tests.support.messages import (
    LIMIT,
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
        await opened.create_queue("dead")
        yield opened


@pytest.fixture
def wall_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand where nothing but the time of day can be compared: on another system than Linux."""
    monkeypatch.setattr(liveness, "clock", lambda: liveness.UNKNOWN)
    monkeypatch.setattr(liveness, "home", lambda: liveness.UNKNOWN)


@pytest.fixture(params=["steady", "wall only"])
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes by hand, on both clocks or where there is only one."""
    clock = Clock()
    if request.param == "steady":
        monkeypatch.setattr(liveness, "steady", clock)
    else:
        request.getfixturevalue("wall_only")
    return clock


async def test_a_lease_that_ends_gives_the_message_to_the_next_and_fences_the_last(
    path: Path, clock: Clock
) -> None:
    async with SQLiteBroker(path, lease=5000, clock=clock) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
        silent = Silent(path, clock, lease=50)
        with closing(silent.session):
            lost = silent.claim()
            subscription = await broker.subscribe("orders", prefetch=1)

            clock.now += 49.9
            with anyio.move_on_after(0.2):
                pytest.fail(f"too early: {await subscription.receive()}")
            clock.now += 0.2
            [delivery] = await take(subscription, 1)

            assert delivery.message == lost.message
            assert delivery.redelivered
            assert delivery.returned == 1  # as far as anybody knows, it died
            with pytest.raises(DeliveryLostError):
                silent.run(lambda store: store.done(silent.receiver, lost.id))
            with pytest.raises(DeliveryLostError):
                silent.run(
                    lambda store: store.move(silent.receiver, lost.id, "orders", numbered(2), 0.0)
                )
            with pytest.raises(BrokerUnavailableError, match="lease expired"):
                silent.claim()
            await delivery.done()
            assert await broker.depth("orders") == 0


async def test_a_message_that_came_back_to_its_last_receiver_is_fenced_too(
    path: Path, clock: Clock
) -> None:
    async with SQLiteBroker(path, lease=50, clock=clock) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
    silent, other = Silent(path, clock, lease=50), Silent(path, clock, lease=5000)
    with closing(silent.session), closing(other.session):
        lost = silent.claim()
        clock.now += 60
        other.session.look()

        with pytest.raises(BrokerUnavailableError):
            silent.claim()
        silent.receiver = silent.run(lambda store: store.subscribe("orders"))
        again = silent.claim()

        assert again.id == lost.id
        assert again.redelivered
        assert other.receiver.id != silent.receiver.id


async def test_a_slow_handler_that_blocks_the_event_loop_keeps_its_message(
    path: Path, clock: Clock
) -> None:
    async with SQLiteBroker(path, lease=0.4, poll_interval=0.01, clock=clock) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
        [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)
        other = Silent(path, clock, lease=5000)
        with closing(sqlite3.connect(path)) as reader, closing(other.session):
            for _ in range(10):  # four leases, without giving the event loop a turn
                clock.now += 0.16
                limit = time.monotonic() + LIMIT
                while lease_of(reader) < clock.now + 0.3:
                    assert time.monotonic() < limit, "the lease was not renewed"
                    time.sleep(0.005)  # noqa: ASYNC251 (to block the loop is the point)
                other.session.look()

        await delivery.done()
        assert await broker.depth("orders") == 0


def lease_of(reader: sqlite3.Connection) -> float:
    [(until_,)] = reader.execute("SELECT min(lease_until) FROM receivers").fetchall()
    return float(until_)


async def test_a_clock_that_is_set_ahead_takes_nothing_from_this_process(
    path: Path, clock: Clock
) -> None:
    async with SQLiteBroker(path, lease=50, poll_interval=0.01, clock=clock) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
        [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)

        clock.now += 5000

        assert await broker.depth("orders") == 0
        await delivery.done()


@pytest.mark.usefixtures("wall_only")
async def test_a_receiver_whose_lease_was_lost_is_told_and_can_begin_again(
    path: Path, broker: SQLiteBroker
) -> None:
    await publish_numbered(broker, "orders", range(2))
    subscription = await broker.subscribe("orders", prefetch=1)
    [delivery] = await take(subscription, 1)
    ahead = Silent(path, lambda: time.time() + 1000, lease=5000)  # a clock that was set wrong
    with closing(ahead.session):
        ahead.session.look()

        with pytest.raises(DeliveryLostError):
            await delivery.done()
        with pytest.raises(BrokerUnavailableError, match="lease expired"):
            await take(subscription, 1)

    again = await take(await broker.subscribe("orders", prefetch=2), 2)
    assert [number_of(delivery.message) for delivery in again] == [0, 1]
    assert [delivery.redelivered for delivery in again] == [True, False]


@pytest.mark.parametrize("in_hand", [0, 1], ids=["with room", "without room"])
async def test_a_waiting_receiver_whose_lease_was_lost_is_told(path: Path, in_hand: int) -> None:
    async with SQLiteBroker(path, lease=0.2, poll_interval=0.01) as broker:
        await broker.create_queue("orders")
        await publish_numbered(broker, "orders", range(in_hand))
        subscription = await broker.subscribe("orders", prefetch=1)
        await take(subscription, in_hand)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("DELETE FROM receivers")

        with pytest.raises(BrokerUnavailableError, match="lease expired"):
            await take(subscription, 1)


async def test_a_receiver_with_room_whose_delivery_shows_that_its_lease_was_lost_is_told(
    path: Path,
) -> None:
    async with SQLiteBroker(path, lease=0.8, poll_interval=0.01) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
        subscription = await broker.subscribe("orders", prefetch=2)
        [delivery] = await take(subscription, 1)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("DELETE FROM receivers")

        with pytest.raises(DeliveryLostError):
            await delivery.done()
        with pytest.raises(BrokerUnavailableError, match="lease expired"):
            await take(subscription, 1)


async def test_a_receiver_whose_lease_has_ended_does_not_count(path: Path, clock: Clock) -> None:
    async with SQLiteBroker(path, lease=5000, clock=clock) as broker:
        await broker.create_queue("orders")
        silent = Silent(path, clock, lease=50)
        with closing(silent.session):
            assert await broker.receivers("orders") == 1
            clock.now += 51
            assert await broker.receivers("orders") == 0


async def test_a_receiver_of_an_older_release_counts_for_every_queue(
    path: Path, broker: SQLiteBroker
) -> None:
    await broker.subscribe("orders", prefetch=1)
    await broker.subscribe("dead", prefetch=1)
    with closing(sqlite3.connect(path)) as file, file:  # it does not say from which it receives
        file.execute("UPDATE receivers SET queue = NULL WHERE id = (SELECT min(id) FROM receivers)")

    assert await broker.receivers("orders") == 1
    assert await broker.receivers("dead") == 2


def test_a_process_elsewhere_is_never_known_to_be_dead() -> None:
    gone = start_and_end()

    assert liveness.known_dead(liveness.home(), gone) is (liveness.home() != liveness.UNKNOWN)
    assert not liveness.known_dead("another boot pid:[1]", gone)
    assert not liveness.known_dead(liveness.UNKNOWN, gone)
    assert not liveness.known_dead(liveness.home(), os.getpid())
    assert not liveness.known_dead(liveness.home(), 1)


def start_and_end() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(LIMIT)
    return process.pid


async def test_what_comes_back_while_a_job_runs_is_heard_of_at_the_next_look(
    path: Path, clock: Clock
) -> None:
    async with SQLiteBroker(path, lease=5000, clock=clock) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
        silent = Silent(path, clock, lease=50)
        with closing(silent.session):
            silent.claim()
        session = Session(str(path), 5000, clock)
        with closing(session):
            session.run([Job(lambda store: store.subscribe("orders"))])
            session.look()
            clock.now += 51
            session.run([Job(lambda store: store.depth("orders"))])  # takes it back on the way

            assert session.look().changed
            assert not session.look().changed


# -- who is dead -----------------------------------------------------------------------------------


async def test_a_stopped_process_loses_its_messages_when_its_lease_ends(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    await broker.publish("orders", numbered(1))
    ready = anyio.Path(tmp_path / "ready")
    with start("hold", path, "orders", 1, ready, 3) as holder:
        await until(ready.exists)
        subscription = await broker.subscribe("orders", prefetch=1)
        with anyio.move_on_after(0.3):
            pytest.fail(f"taken from a process that runs: {await subscription.receive()}")

        holder.pause()

        [delivery] = await take(subscription, 1)
        assert delivery.message == numbered(1)


async def test_a_process_that_has_a_dead_ones_id_keeps_nothing_for_it(
    path: Path, broker: SQLiteBroker
) -> None:
    await broker.publish("orders", numbered(1))
    other = Silent(path, time.time, lease=3600)
    with closing(other.session):
        other.claim()
        subscription = await broker.subscribe("orders", prefetch=1)
        with closing(sqlite3.connect(path)) as file, file:  # as if this process had begun later
            file.execute(
                "UPDATE receivers SET started = started - 1 WHERE id = ?", [other.receiver.id]
            )

        [delivery] = await take(subscription, 1)

    assert delivery.message == numbered(1)


async def test_a_process_of_a_release_that_wrote_no_start_time_lives_by_its_lease(
    path: Path, broker: SQLiteBroker
) -> None:
    clock = SetClock()
    await broker.publish("orders", numbered(1))
    older = Silent(path, clock, lease=50)
    with closing(older.session):
        older.claim()
        with closing(sqlite3.connect(path)) as file, file:
            file.execute(
                "UPDATE receivers SET started = NULL, clock = NULL, steady_until = NULL"
                " WHERE id = ?",
                [older.receiver.id],
            )
        subscription = await broker.subscribe("orders", prefetch=1)
        with anyio.move_on_after(0.3):
            pytest.fail(f"too early: {await subscription.receive()}")
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("UPDATE receivers SET lease_until = 0 WHERE id = ?", [older.receiver.id])

        assert (await take(subscription, 1))[0].message == numbered(1)


def test_a_start_time_is_read_behind_any_name(tmp_path: Path) -> None:
    if liveness.home() == liveness.UNKNOWN:
        pytest.skip("the kernel does not say here when a process began")
    program = tmp_path / "a) S 1 (2"
    shutil.copy("/bin/sleep", program)
    process = subprocess.Popen([program, "60"])
    try:
        assert (liveness.started(process.pid) or 0) >= (liveness.started(os.getpid()) or 0) > 0
    finally:
        process.kill()
        process.wait(LIMIT)
    assert liveness.started(process.pid) is None
