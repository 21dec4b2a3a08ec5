"""The embedded broker's file shared by processes, some of which die; and the leases behind that."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
import pytest

from fusewire.brokers import SQLiteBroker
from fusewire.brokers.sqlite import liveness
from fusewire.brokers.sqlite.session import Job, Session
from fusewire.errors import BrokerUnavailableError, DeliveryLostError
from tests.support.embedded_process import start
from tests.support.messages import LIMIT, number_of, numbered, publish_numbered, take, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from fusewire.brokers.sqlite.store import Claimed, Store
    from tests.support.processes import KeptProcess

T = TypeVar("T")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
async def broker(path: Path) -> AsyncIterator[SQLiteBroker]:
    async with SQLiteBroker(path) as opened:
        await opened.create_queue("orders")
        await opened.create_queue("dead")
        yield opened


async def numbers_in(broker: SQLiteBroker, queue: str) -> Counter[int]:
    return Counter(number_of(message) for message in await broker.peek(queue, limit=100_000))


# -- processes -------------------------------------------------------------------------------------


async def test_several_processes_share_one_queue_without_overlap(
    path: Path, broker: SQLiteBroker
) -> None:
    with (
        start("move", path, "orders", "dead"),
        start("move", path, "orders", "dead"),
        start("move", path, "orders", "dead"),
    ):
        await publish_numbered(broker, "orders", range(600))

        async def all_moved() -> bool:
            return await broker.depth("dead") == 600

        await until(all_moved)

    assert await numbers_in(broker, "dead") == Counter(range(600))
    assert await broker.depth("orders") == 0


async def test_a_killed_receivers_messages_come_back_at_once_and_in_order(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    await publish_numbered(broker, "orders", range(5))
    # Its lease is an hour, so what comes back does so because it is dead.
    with start("hold", path, "orders", 3, ready) as holder:

        async def has_them() -> bool:
            return ready.exists()

        await until(has_them)
        assert await broker.depth("orders") == 2
        holder.kill()

        deliveries = await take(await broker.subscribe("orders", prefetch=5), 5)

    assert [number_of(delivery.message) for delivery in deliveries] == [0, 1, 2, 3, 4]
    assert [delivery.redelivered for delivery in deliveries] == [True] * 3 + [False] * 2


async def test_it_counts_the_receivers_that_died_with_a_message_and_no_releases(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    await broker.publish("orders", numbered(1))
    for deaths in range(3):
        subscription = await broker.subscribe("orders", prefetch=1)
        [delivery] = await take(subscription, 1)
        assert delivery.returned == deaths
        await subscription.release()

        ready = tmp_path / f"ready {deaths}"
        with start("hold", path, "orders", 1, ready) as holder:
            await until(anyio.Path(ready).exists)
            holder.kill()

    [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)
    assert delivery.returned == 3
    assert delivery.redelivered


async def test_a_message_that_is_moved_has_killed_nobody(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    await broker.publish("orders", numbered(1))
    ready = anyio.Path(tmp_path / "ready")
    with start("hold", path, "orders", 1, ready) as holder:
        await until(ready.exists)
        holder.kill()
    [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)

    await delivery.move("dead", delivery.message)

    [moved] = await take(await broker.subscribe("dead", prefetch=1), 1)
    assert (delivery.returned, moved.returned) == (1, 0)


async def test_a_stopped_receiver_keeps_its_messages_and_blocks_nobody(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    await publish_numbered(broker, "orders", range(4))
    with start("hold", path, "orders", 2, ready) as holder:

        async def has_them() -> bool:
            return ready.exists()

        await until(has_them)
        holder.pause()

        for delivery in await take(await broker.subscribe("orders", prefetch=2), 2):
            assert number_of(delivery.message) in {2, 3}
            await delivery.move("dead", delivery.message)
        assert await broker.depth("dead") == 2


async def test_killing_movers_in_mid_load_loses_and_doubles_nothing(
    path: Path, broker: SQLiteBroker
) -> None:
    await publish_numbered(broker, "orders", range(1000))
    for seed in range(4):
        with start("move_and_die", path, "orders", "dead", 150, seed) as mover:

            async def is_dead(mover: KeptProcess = mover) -> bool:
                return not mover.running

            await until(is_dead)
    assert 600 <= await broker.depth("dead") < 1000
    with start("move", path, "orders", "dead"):

        async def all_moved() -> bool:
            return await broker.depth("dead") == 1000

        await until(all_moved)

    # A move is one transaction, so here not even a duplicate is allowed.
    assert await numbers_in(broker, "dead") == Counter(range(1000))
    subscription = await broker.subscribe("orders", prefetch=10)
    with anyio.move_on_after(0.2):  # long enough to find what a dead mover had in hand
        pytest.fail(f"left over: {await subscription.receive()}")


async def test_killing_a_publisher_loses_nothing_that_it_was_told_is_stored(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    log = tmp_path / "confirmed"
    with start("publish", path, "orders", 100_000, log) as publisher:

        async def is_in_the_middle() -> bool:
            return await broker.depth("orders") >= 300

        await until(is_in_the_middle)
        publisher.kill()

    # A last line that was cut off was not told to anybody.
    confirmed = {int(line) for line in log.read_text().splitlines(keepends=True) if "\n" in line}
    stored = await numbers_in(broker, "orders")
    assert len(confirmed) >= 200
    assert confirmed <= stored.keys()
    assert set(stored.values()) == {1}
    assert len(stored) < 100_000, "it was not killed in the middle"


async def test_a_crash_inside_a_move_leaves_the_original_where_it_was(
    path: Path, broker: SQLiteBroker
) -> None:
    await broker.publish("orders", numbered(1))
    with start("die_in_move", path, "orders", "dead") as mover:

        async def is_dead() -> bool:
            return not mover.running

        await until(is_dead)
        [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)

    assert delivery.message == numbered(1)
    assert delivery.redelivered
    assert await broker.depth("dead") == 0


# -- leases ----------------------------------------------------------------------------------------


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Silent:
    """A receiver that gives no sign of life: nobody has its session renew the lease."""

    def __init__(self, path: Path, clock: Callable[[], float], lease: float) -> None:
        self.session = Session(str(path), lease, clock)
        self.receiver: int = self.run(lambda store: store.subscribe("orders"))

    def run(self, operation: Callable[[Store], T]) -> T:
        job = Job(operation)
        self.session.run([job])
        if job.error is not None:
            raise job.error
        return cast("T", job.result)

    def claim(self) -> Claimed:
        [claimed] = self.run(lambda store: store.claim("orders", self.receiver, 1))
        return claimed


async def test_a_lease_that_ends_gives_the_message_to_the_next_and_fences_the_last(
    path: Path,
) -> None:
    clock = Clock()
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
                    lambda store: store.move(silent.receiver, lost.id, "orders", numbered(2))
                )
            with pytest.raises(BrokerUnavailableError, match="lease expired"):
                silent.claim()
            await delivery.done()
            assert await broker.depth("orders") == 0


async def test_a_message_that_came_back_to_its_last_receiver_is_fenced_too(path: Path) -> None:
    clock = Clock()
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
        assert other.receiver != silent.receiver


async def test_a_slow_handler_that_blocks_the_event_loop_keeps_its_message(path: Path) -> None:
    clock = Clock()
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


async def test_a_clock_that_is_set_ahead_takes_nothing_from_this_process(path: Path) -> None:
    clock = Clock()
    async with SQLiteBroker(path, lease=50, poll_interval=0.01, clock=clock) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
        [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)

        clock.now += 5000

        assert await broker.depth("orders") == 0
        await delivery.done()


async def test_a_receiver_whose_lease_was_lost_is_told_and_can_begin_anew(
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

    anew = await take(await broker.subscribe("orders", prefetch=2), 2)
    assert [number_of(delivery.message) for delivery in anew] == [0, 1]
    assert [delivery.redelivered for delivery in anew] == [True, False]


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


async def test_what_comes_back_while_a_job_runs_is_heard_of_at_the_next_look(path: Path) -> None:
    clock = Clock()
    async with SQLiteBroker(path, lease=5000, clock=clock) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
        silent = Silent(path, clock, lease=50)
        with closing(silent.session):
            silent.claim()
        session = Session(str(path), 5000, clock)
        with closing(session):
            clock.now += 51
            session.run([Job(lambda store: store.depth("orders"))])  # takes it back on the way

            assert session.look().changed
            assert not session.look().changed
