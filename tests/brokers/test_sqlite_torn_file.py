"""The log or the index beside the embedded broker's file is deleted while they are open."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from fusewire.brokers import SQLiteBroker
from fusewire.brokers.sqlite._openfile import OpenFile
from fusewire.errors import (
    BrokerUnavailableError,
    DeliveryLostError,
)
from tests.support.embedded_file import (
    TEARS,
    confirmed_in,
    delete_both,
    delete_index,
    empty_log,
    found_by_name,
    in_the_middle,
    index_of,
    log_of,
    open_with_backup,
    read_only,
    replace_file,
)
from tests.support.embedded_process import start
from tests.support.messages import number_of, numbered, publish_numbered, take, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.processes import KeptProcess


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
async def broker(path: Path) -> AsyncIterator[SQLiteBroker]:
    async with open_with_backup(path) as opened:
        yield opened


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
    monkeypatch.setattr("fusewire.brokers.sqlite._database.BUSY_TIMEOUT", 0.05)
    monkeypatch.setattr("fusewire.brokers.sqlite._checkpoint.BUSY_TIMEOUT", 0.05)
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
    monkeypatch.setattr("fusewire.brokers.sqlite._database.BUSY_TIMEOUT", 0.05)
    monkeypatch.setattr("fusewire.brokers.sqlite._checkpoint.BUSY_TIMEOUT", 0.05)
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
