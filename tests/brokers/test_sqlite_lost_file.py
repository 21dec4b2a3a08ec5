"""The embedded broker's file is moved, deleted or replaced while it is open."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from fusewire.brokers import SQLiteBroker, Topology
from fusewire.brokers.sqlite.database import open_database
from fusewire.brokers.sqlite.openfile import OpenFile
from fusewire.brokers.sqlite.store import Store
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
    UnconfirmedError,
)
from tests.support.embedded_process import start
from tests.support.messages import drain, number_of, numbered, publish_numbered, take, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fusewire.brokers import Message
    from tests.support.processes import KeptProcess


def delete_all(path: Path) -> None:
    for name in (path, log_of(path), index_of(path)):
        name.unlink()


def delete_file(path: Path) -> None:
    path.unlink()


def move_file(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def empty_file(path: Path) -> None:
    os.truncate(path, 0)


def replace_file(path: Path) -> None:
    """Put back what a backup holds: an older state of the file, without its log."""
    shutil.copy(path.with_name("backup.db"), path.with_name("restored.db"))
    path.with_name("restored.db").replace(path)


def replace_all(path: Path) -> None:
    log_of(path).unlink()
    index_of(path).unlink()
    replace_file(path)


def delete_log(path: Path) -> None:
    log_of(path).unlink(missing_ok=True)  # between two deletions others may have left them


def delete_index(path: Path) -> None:
    index_of(path).unlink(missing_ok=True)


def delete_both(path: Path) -> None:
    delete_log(path)
    delete_index(path)


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-shm")


LOSSES = [delete_all, delete_file, move_file, replace_file, replace_all]
TEARS = [delete_log, delete_index, delete_both]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
async def broker(path: Path) -> AsyncIterator[SQLiteBroker]:
    async with SQLiteBroker(path) as opened:
        await opened.create_queue("orders")
        await opened.prepare(Topology("orders"))
        with closing(sqlite3.connect(path)) as file, closing(sqlite3.connect(":memory:")) as copy:
            file.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            with closing(sqlite3.connect(path.with_name("backup.db"))) as backup:
                copy.backup(backup)
        yield opened


def empty_log(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)


async def found_by_name(path: Path) -> list[int]:
    """Return the numbers that a process finds that knows nothing but the file's name."""
    async with SQLiteBroker(path) as other:
        return [number_of(message) for message in await other.peek("orders", limit=1_000_000)]


# -- losses ----------------------------------------------------------------------------------------


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


def in_the_middle(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Act in the transaction of the next publish, when it has been written."""
    publish, acts = Store.publish, [act]

    def publish_and_act(self: Store, queue: str, message: Message) -> None:
        publish(self, queue, message)
        while acts:
            acts.pop()()

    monkeypatch.setattr(Store, "publish", publish_and_act)


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

    monkeypatch.setattr("fusewire.brokers.sqlite.openfile.open_database", open_and_replace)
    async with SQLiteBroker(path) as again:
        await again.publish("orders", numbered(1))

        with closing(sqlite3.connect(path)) as file:
            found = file.execute("SELECT body FROM messages").fetchall()
        assert found == [(b"7",), (b"1",)]


async def test_the_queues_of_a_lost_file_are_made_in_the_next(
    path: Path, broker: SQLiteBroker
) -> None:
    topology = Topology("orders", lanes=("payments",), delay_tiers=(0.05,), single=True)
    await broker.prepare(topology)
    delete_all(path)

    await broker.publish(topology.delay(0.05), numbered(1))
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
async def test_what_was_in_hand_is_lost_and_settles_nothing_in_the_next_file(
    path: Path, broker: SQLiteBroker, lose: Callable[[Path], None]
) -> None:
    await publish_numbered(broker, "orders", range(2))
    subscription = await broker.subscribe("orders", prefetch=2)
    done, moved = await take(subscription, 2)
    lose(path)
    # Here messages and receivers have the numbers again that they had in the lost file.
    await publish_numbered(broker, "orders", range(10, 12))
    anew = await take(await broker.subscribe("orders", prefetch=2), 2)

    with pytest.raises(DeliveryLostError):
        await done.done()
    with pytest.raises(DeliveryLostError):
        await moved.move("orders.dead", moved.message)
    with pytest.raises(BrokerUnavailableError, match="moved, deleted or replaced"):
        await take(subscription, 1)
    assert done.lost

    assert [number_of(delivery.message) for delivery in anew] == [10, 11]
    await anew[0].done()
    await anew[1].move("orders.dead", anew[1].message)
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


# -- a log or an index that was deleted ------------------------------------------------------------


@pytest.mark.parametrize("tear", TEARS)
async def test_nothing_is_lost_when_log_or_index_is_deleted(
    path: Path,
    broker: SQLiteBroker,
    tear: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    await publish_numbered(broker, "orders", range(3))
    [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)
    tear(path)

    await broker.publish("orders", numbered(3))
    await delivery.done()

    assert await found_by_name(path) == [1, 2, 3]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "nothing is lost" in caplog.text


@pytest.mark.parametrize("tear", TEARS)
async def test_what_is_stored_while_log_or_index_is_deleted_is_found(
    path: Path,
    broker: SQLiteBroker,
    tear: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_the_middle(monkeypatch, lambda: tear(path))

    await publish_numbered(broker, "orders", range(3))

    assert await found_by_name(path) == [0, 1, 2]


@pytest.mark.parametrize("tear", TEARS)
async def test_two_brokers_of_one_process_both_go_on(
    path: Path, broker: SQLiteBroker, tear: Callable[[Path], None]
) -> None:
    async with SQLiteBroker(path) as other:
        for number in range(0, 10, 2):
            await broker.publish("orders", numbered(number))
            tear(path)
            await other.publish("orders", numbered(number + 1))

    assert await found_by_name(path) == list(range(10))


@pytest.mark.parametrize("tear", TEARS)
async def test_a_reader_that_holds_up_the_copying_makes_nothing_lost(
    path: Path, tear: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusewire.brokers.sqlite.database.BUSY_TIMEOUT", 0.05)
    monkeypatch.setattr("fusewire.brokers.sqlite.checkpoint.BUSY_TIMEOUT", 0.05)
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        with closing(read_only(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM messages").fetchone()
            await publish_numbered(broker, "orders", range(3))
            tear(path)
            with pytest.raises(BrokerUnavailableError, match="cannot be copied"):
                await broker.publish("orders", numbered(3))
            reader.execute("COMMIT")

        await broker.publish("orders", numbered(4))

    assert await found_by_name(path) == [0, 1, 2, 4]


async def test_a_log_that_cannot_be_copied_is_left_to_the_next_process(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fusewire.brokers.sqlite.database.BUSY_TIMEOUT", 0.05)
    monkeypatch.setattr("fusewire.brokers.sqlite.checkpoint.BUSY_TIMEOUT", 0.05)
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        with closing(read_only(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM messages").fetchone()
            await publish_numbered(broker, "orders", range(3))
            delete_index(path)
            await broker.__aexit__(None, None, None)

    assert "held 3 messages" in caplog.text
    assert await found_by_name(path) == [0, 1, 2]


async def test_a_file_that_is_replaced_after_its_log_was_deleted_is_lost(
    path: Path, broker: SQLiteBroker, caplog: pytest.LogCaptureFixture
) -> None:
    await publish_numbered(broker, "orders", range(3))
    delete_both(path)

    async def is_saved() -> bool:
        return "nothing is lost" in caplog.text

    await until(is_saved)
    replace_file(path)
    await broker.publish("orders", numbered(3))

    assert await found_by_name(path) == [3]
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "held 3 messages" in error.getMessage()


async def test_a_receiver_settles_nothing_in_a_file_that_came_while_the_log_was_rescued(
    path: Path, broker: SQLiteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave, replacements = OpenFile.leave, [replace_file]

    def leave_and_replace(self: OpenFile) -> None:
        leave(self)
        while replacements:
            replacements.pop()(path)

    monkeypatch.setattr(OpenFile, "leave", leave_and_replace)
    await publish_numbered(broker, "orders", range(2))
    subscription = await broker.subscribe("orders", prefetch=2)
    done, _ = await take(subscription, 2)
    delete_both(path)
    await publish_numbered(broker, "orders", range(10, 12))
    again = await take(await broker.subscribe("orders", prefetch=2), 2)

    with pytest.raises(DeliveryLostError):
        await done.done()

    assert [number_of(delivery.message) for delivery in again] == [10, 11]
    for delivery in again:
        await delivery.done()


async def test_a_log_that_others_have_replaced_is_not_mixed_with_theirs(
    path: Path, broker: SQLiteBroker, caplog: pytest.LogCaptureFixture
) -> None:
    empty_log(path)  # so that the queue is in the file itself
    await publish_numbered(broker, "orders", range(3))
    delete_both(path)
    log = path.with_name("confirmed")
    with start("publish", path, "orders", 1, log):

        async def is_stored() -> bool:
            return log.exists() and bool(confirmed_in(log))

        await until(is_stored)

        async def is_said() -> bool:
            return "moved, deleted or replaced" in caplog.text or "nothing is lost" in caplog.text

        await until(is_said)
    await broker.publish("orders", numbered(4))

    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert await found_by_name(path) in ([0, 4], [0, 1, 2, 0, 4])


# -- processes -------------------------------------------------------------------------------------


def confirmed_in(log: Path) -> set[int]:
    # A last line that was cut off was not told to anybody.
    return {int(line) for line in log.read_text().splitlines(keepends=True) if "\n" in line}


def has_whole_file_open(path: Path, process: KeptProcess) -> bool:
    """Return whether a process has opened what the three names lead to, and nothing else."""
    wanted = {str(path), str(log_of(path)), str(index_of(path))}
    with contextlib.suppress(OSError):  # a file that is closed meanwhile
        links = {str(each.readlink()) for each in Path(f"/proc/{process.pid}/fd").iterdir()}
        return {link for link in links if link.startswith(str(path))} == wanted
    return False


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="/proc shows what is open")
@pytest.mark.parametrize("tear", TEARS)
async def test_processes_that_share_a_file_lose_nothing_when_log_or_index_is_deleted(
    path: Path, broker: SQLiteBroker, tmp_path: Path, tear: Callable[[Path], None]
) -> None:
    log = tmp_path / "confirmed"
    with (
        start("publish", path, "orders", 100_000, log) as publisher,
        start("move", path, "orders", "orders.dead") as mover,
    ):
        for goal in range(100, 500, 100):

            async def all_go_on(goal: int = goal) -> bool:
                assert publisher.running
                assert mover.running
                return (
                    log.exists()
                    and len(confirmed_in(log)) >= goal
                    and await broker.depth("orders.dead") >= goal - 50
                    and has_whole_file_open(path, publisher)
                    and has_whole_file_open(path, mover)
                )

            await until(all_go_on)
            tear(path)
        publisher.kill()
        mover.kill()

    async with SQLiteBroker(path) as other:
        numbers = [
            number_of(message)
            for queue in ("orders", "orders.dead")
            for message in await other.peek(queue, limit=1_000_000)
        ]
    assert confirmed_in(log) <= set(numbers)
    assert len(numbers) == len(set(numbers))


async def test_a_process_leaves_no_other_alone_in_its_transaction(
    path: Path, broker: SQLiteBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = tmp_path / "ready"
    await broker.publish("orders", numbered(0))
    with start("hold", path, "orders", 1, ready):
        await until(anyio.Path(ready).exists)
        empty_log(path)  # so that there is nothing to save

        def delete_and_wait() -> None:
            delete_both(path)
            limit = time.monotonic() + 1.0  # many looks of the other's
            while not log_of(path).exists() and time.monotonic() < limit:
                time.sleep(0.01)

        in_the_middle(monkeypatch, delete_and_wait)

        await broker.publish("orders", numbered(1))

        assert await found_by_name(path) == [1]


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
