"""The embedded broker's file is moved, deleted or replaced while it is open."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from fusewire.brokers import SQLiteBroker, Topology
from fusewire.brokers.sqlite._database import open_database
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
    UnconfirmedError,
)
from tests.support.embedded_file import (
    LOSSES,
    confirmed_in,
    delete_all,
    found_by_name,
    in_the_middle,
    move_file,
    open_with_backup,
    replace_file,
)
from tests.support.embedded_process import start
from tests.support.messages import drain, number_of, numbered, publish_numbered, take, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
async def broker(path: Path) -> AsyncIterator[SQLiteBroker]:
    async with open_with_backup(path) as opened:
        yield opened


@pytest.mark.parametrize("lose", LOSSES)
async def test_what_is_published_afterwards_is_found_under_the_name(
    path: Path,
    broker: SQLiteBroker,
    lose: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    await publish_numbered(broker, "orders", range(3))
    lose(path)

    await broker.publish("orders", numbered(3))

    assert await found_by_name(path) == [3]
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert str(path) in error.getMessage()
    assert "held 3 messages" in error.getMessage()


@pytest.mark.parametrize("lose", LOSSES)
async def test_what_is_stored_in_the_moment_of_the_loss_is_in_doubt_and_no_more_after_it(
    path: Path,
    broker: SQLiteBroker,
    lose: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_the_middle(monkeypatch, lambda: lose(path))

    with pytest.raises(UnconfirmedError, match="moved, deleted or replaced"):
        await broker.publish("orders", numbered(1))

    await broker.publish("orders", numbered(2))
    assert await found_by_name(path) == [2]


async def test_a_file_that_was_moved_holds_all_that_it_held(
    path: Path, broker: SQLiteBroker
) -> None:
    await publish_numbered(broker, "orders", range(3))
    move_file(path)

    await broker.depth("orders")

    assert await found_by_name(path.with_name("moved.db")) == [0, 1, 2]


async def test_a_file_that_was_moved_holds_all_that_it_held_though_another_took_its_place(
    path: Path, broker: SQLiteBroker
) -> None:
    await publish_numbered(broker, "orders", range(3))
    move_file(path)
    replace_file(path)

    await broker.publish("orders", numbered(3))

    assert await found_by_name(path) == [3]
    assert await found_by_name(path.with_name("moved.db")) == [0, 1, 2]


async def test_a_process_that_opens_the_name_of_a_moved_file_shares_nothing_with_it(
    path: Path, broker: SQLiteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = path.with_name("confirmed")
    processes = []

    def move_and_start() -> None:
        move_file(path)
        processes.append(start("publish", path, "orders", 3, log))
        limit = time.monotonic() + 1.5
        while not (log.exists() and confirmed_in(log)) and time.monotonic() < limit:
            time.sleep(0.01)

    await publish_numbered(broker, "orders", range(3))
    in_the_middle(monkeypatch, move_and_start)
    with pytest.raises(UnconfirmedError):
        await broker.publish("orders", numbered(3))
    await broker.publish("orders", numbered(4))

    with processes[0] as publisher:

        async def has_ended() -> bool:
            return not publisher.running

        await until(has_ended)
    assert confirmed_in(log) <= set(await found_by_name(path)) <= {0, 1, 2, 4}
    assert 4 in await found_by_name(path)
    assert await found_by_name(path.with_name("moved.db")) == [0, 1, 2, 3]


async def test_a_file_that_is_replaced_while_it_is_opened_is_not_taken_for_the_other(
    path: Path, broker: SQLiteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broker.__aexit__(None, None, None)
    async with SQLiteBroker(path.with_name("backup.db")) as backup:
        await backup.publish("orders", numbered(7))
    replaced = []

    def open_and_replace(path: str) -> sqlite3.Connection:
        connection = open_database(path)
        if not replaced:
            replaced.append(path)
            replace_file(Path(path))
        return connection

    monkeypatch.setattr("fusewire.brokers.sqlite._openfile.open_database", open_and_replace)
    async with SQLiteBroker(path) as again:
        await again.publish("orders", numbered(1))

        with closing(sqlite3.connect(path)) as file:
            found = file.execute("SELECT body FROM messages").fetchall()
        assert found == [(b"7",), (b"1",)]


async def test_the_queues_of_a_lost_file_are_made_in_the_next(
    path: Path, broker: SQLiteBroker
) -> None:
    topology = Topology("orders", lanes=("payments",), delays=(0.05,), single=True)
    await broker.prepare(topology)
    delete_all(path)

    await broker.publish(topology.source, numbered(1), delay=0.05)
    await broker.publish(topology.parked("payments"), numbered(2))

    async with SQLiteBroker(path) as other:
        [delayed] = await take(await other.subscribe("orders", prefetch=1), 1)
        assert delayed.message == numbered(1)
        lane = topology.parked("payments")
        [parked] = await take(await other.subscribe(lane, prefetch=1), 1)
        second = await broker.subscribe(lane, prefetch=1)
        await broker.publish(lane, numbered(3))
        with anyio.move_on_after(0.2):
            pytest.fail(f"two receivers at a time: {await second.receive()}")
        assert parked.message == numbered(2)


@pytest.mark.parametrize("lose", LOSSES)
async def test_what_was_in_flight_is_lost_and_settles_nothing_in_the_next_file(
    path: Path, broker: SQLiteBroker, lose: Callable[[Path], None]
) -> None:
    await publish_numbered(broker, "orders", range(2))
    subscription = await broker.subscribe("orders", prefetch=2)
    done, moved = await take(subscription, 2)
    lose(path)
    # Here messages and receivers have the numbers again that they had in the lost file.
    await publish_numbered(broker, "orders", range(10, 12))
    again = await take(await broker.subscribe("orders", prefetch=2), 2)

    with pytest.raises(DeliveryLostError):
        await done.done()
    with pytest.raises(DeliveryLostError):
        await moved.move("orders.dead", moved.message)
    with pytest.raises(BrokerUnavailableError, match="moved, deleted or replaced"):
        await take(subscription, 1)
    assert done.lost

    assert [number_of(delivery.message) for delivery in again] == [10, 11]
    await again[0].done()
    await again[1].move("orders.dead", again[1].message)
    assert await drain(broker, "orders.dead", 1) == [numbered(11)]
    assert await found_by_name(path) == []


@pytest.mark.parametrize("receivers", [1, 0], ids=["receiving", "idle"])
async def test_a_loss_is_noticed_without_an_operation(
    path: Path, broker: SQLiteBroker, caplog: pytest.LogCaptureFixture, receivers: int
) -> None:
    for _ in range(receivers):
        await broker.subscribe("orders", prefetch=1)
    delete_all(path)

    async def is_said() -> bool:
        return "moved, deleted or replaced" in caplog.text

    await until(is_said)


async def test_leaving_the_broker_says_that_its_file_was_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
        delete_all(path)

    assert "held 1 messages" in caplog.text


async def test_while_there_is_nothing_to_open_each_operation_says_so(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    folder = anyio.Path(tmp_path)
    moved = await folder.rename(tmp_path.with_name(f"{tmp_path.name} moved"))
    for _ in range(2):
        with pytest.raises(BrokerUnavailableError, match=r"broker\.db.*folder"):
            await broker.publish("orders", numbered(1))

    await moved.rename(folder)
    await broker.publish("orders", numbered(2))
    assert await found_by_name(path) == [2]


async def test_another_programs_file_in_its_place_is_named_and_left_alone(
    path: Path, broker: SQLiteBroker
) -> None:
    with closing(sqlite3.connect(path.with_name("other.db"))) as other, other:
        other.execute("CREATE TABLE messages (id)")
    await anyio.Path(path.with_name("other.db")).replace(path)

    with pytest.raises(BrokerError, match="another program"):
        await broker.publish("orders", numbered(1))


async def test_a_link_that_leads_elsewhere_is_a_loss(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "one.db")
    async with SQLiteBroker(link) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", numbered(1))
        link.unlink()
        link.symlink_to(tmp_path / "two.db")

        await broker.publish("orders", numbered(2))

    assert await found_by_name(tmp_path / "one.db") == [1]
    assert await found_by_name(tmp_path / "two.db") == [2]


async def test_a_file_that_was_emptied_takes_nothing_in_silence(
    path: Path, broker: SQLiteBroker, caplog: pytest.LogCaptureFixture
) -> None:
    await publish_numbered(broker, "orders", range(2))
    os.truncate(path, 0)

    try:
        await broker.publish("orders", numbered(3))
    except BrokerError:
        pass
    else:
        assert 3 in await found_by_name(path)
    assert "moved, deleted or replaced" in caplog.text


async def test_every_process_notices_that_the_file_was_deleted(
    path: Path, broker: SQLiteBroker, tmp_path: Path
) -> None:
    logs = [tmp_path / "one", tmp_path / "two"]
    with (
        start("publish", path, "orders", 100_000, logs[0]),
        start("publish", path, "orders", 100_000, logs[1]),
    ):

        async def have_begun() -> bool:
            return all(log.exists() and len(confirmed_in(log)) >= 50 for log in logs)

        await until(have_begun)
        delete_all(path)
        before = [max(confirmed_in(log)) for log in logs]

        async def go_on() -> bool:
            return all(
                max(confirmed_in(log)) >= last + 100 for log, last in zip(logs, before, strict=True)
            )

        await until(go_on)

    stored = await found_by_name(path)
    for log, last in zip(logs, before, strict=True):
        # Those that were confirmed in the moment of the deletion may be in the deleted file.
        assert {number for number in confirmed_in(log) if number > last + 20} <= set(stored)
