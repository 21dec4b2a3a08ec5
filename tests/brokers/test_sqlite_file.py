"""The embedded broker's file: made together, refused, full, locked, damaged."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import pytest

from fusewire.brokers import Message, SQLiteBroker, Topology
from fusewire.brokers.message import UNREADABLE
from fusewire.brokers.sqlite import _database as database
from fusewire.brokers.sqlite._jobs import Job
from fusewire.brokers.sqlite._session import Session
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
)
from tests.support.messages import FULL, LIMIT, drain, numbered, publish_numbered, take, until

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
        await opened.prepare(Topology("orders"))
        yield opened


@pytest.mark.parametrize("attempt", range(20))
async def test_brokers_that_make_one_file_together_all_open_it(path: Path, attempt: int) -> None:
    brokers = [SQLiteBroker(path) for _ in range(8)]
    await asyncio.gather(*(broker.__aenter__() for broker in brokers))
    try:
        await asyncio.gather(*(broker.create_queue("orders") for broker in brokers))
        assert [await broker.depth("orders") for broker in brokers] == [0] * 8
    finally:
        for broker in brokers:
            await broker.__aexit__(None, None, None)


async def test_opening_waits_for_another_process_that_is_making_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as maker:
        maker.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(time, "sleep", lambda _: maker.execute("ROLLBACK"))
        async with SQLiteBroker(path) as broker:
            await broker.create_queue("orders")
        assert not maker.in_transaction


async def test_opening_a_file_that_stays_locked_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerUnavailableError, match="another process"):
            await SQLiteBroker(path).__aenter__()


async def test_a_file_of_a_newer_format_is_refused_with_what_to_do(path: Path) -> None:
    async with SQLiteBroker(path):
        pass
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {database.FORMAT + 1}")

    with pytest.raises(BrokerError, match=r"broker\.db.*format 3.*upgrade"):
        await SQLiteBroker(path).__aenter__()


async def test_a_file_of_the_previous_format_is_read_and_brought_up_to_date(path: Path) -> None:
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", FULL)
    with closing(sqlite3.connect(path, isolation_level=None)) as older:
        older.execute("ALTER TABLE queues DROP COLUMN single")
        older.execute("ALTER TABLE queues DROP COLUMN active")
        older.execute("PRAGMA user_version = 1")

    async with SQLiteBroker(path) as broker:
        assert await drain(broker, "orders", 1) == [FULL]

    with closing(sqlite3.connect(path)) as now:
        assert now.execute("PRAGMA user_version").fetchone() == (database.FORMAT,)


async def test_a_file_without_the_columns_that_came_later_gets_them_and_keeps_its_format(
    path: Path,
) -> None:
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        await broker.publish("orders", FULL)
    with closing(sqlite3.connect(path, isolation_level=None)) as older:
        older.execute("ALTER TABLE messages DROP COLUMN deaths")

    async with SQLiteBroker(path) as broker:
        [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)
        assert delivery.message == FULL
        assert delivery.returned == 0

    with closing(sqlite3.connect(path)) as now:
        assert now.execute("PRAGMA user_version").fetchone() == (2,)


async def test_a_file_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE messages (id)")

    with pytest.raises(BrokerError, match=r"broker\.db.*another program"):
        await SQLiteBroker(path).__aenter__()

    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("delete",)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    file = anyio.Path(path)
    await file.write_bytes(b"minutes of the meeting\n" * 100)

    with pytest.raises(BrokerError, match=r"broker\.db.*not a database"):
        await SQLiteBroker(path).__aenter__()

    assert await file.read_bytes() == b"minutes of the meeting\n" * 100


async def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no folder" / "broker.db"):
        with pytest.raises(BrokerUnavailableError, match=rf"{path}.*folder"):
            await SQLiteBroker(path).__aenter__()


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        (sqlite3.SQLITE_READONLY, BrokerUnavailableError, "permissions"),
        (sqlite3.SQLITE_FULL, BrokerUnavailableError, "free space"),
        (sqlite3.SQLITE_IOERR, BrokerUnavailableError, "disk"),
        (sqlite3.SQLITE_CORRUPT, BrokerError, "restore"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, BrokerUnavailableError, "another process"),
        (sqlite3.SQLITE_MISUSE, BrokerError, "went wrong"),
    ],
)
def test_an_error_of_sqlite_says_which_file_and_what_to_do(
    code: int, kind: type[BrokerError], advice: str
) -> None:
    error = sqlite3.OperationalError("went wrong")
    error.sqlite_errorcode = code

    translated = database.translate(error, "/data/broker.db")

    assert type(translated) is kind
    assert "/data/broker.db" in str(translated)
    assert advice in str(translated)


async def test_a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_small(path: str) -> sqlite3.Connection:
        connection = database.open_database(path)
        connection.execute("PRAGMA max_page_count = 40")
        return connection

    monkeypatch.setattr("fusewire.brokers.sqlite._openfile.open_database", open_small)
    large = Message(body=bytes(2**20))
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        await broker.create_queue("dead")
        results = await asyncio.gather(
            broker.publish("orders", numbered(1)),
            broker.publish("orders", large),
            broker.publish("orders", numbered(2)),
            return_exceptions=True,
        )
        assert isinstance(results[1], BrokerUnavailableError)
        assert "broker.db" in str(results[1])
        assert "free space" in str(results[1])

        [delivery] = await take(await broker.subscribe("orders", prefetch=1), 1)
        with pytest.raises(BrokerUnavailableError, match="free space"):
            await delivery.move("dead", large)
        await delivery.move("dead", delivery.message)
        assert await drain(broker, "dead", 1) == [numbered(1)]
        assert await drain(broker, "orders", 1) == [numbered(2)]


async def test_a_file_that_another_process_keeps_locked_is_an_error_and_not_a_wait_without_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def is_reported() -> bool:
        return "cannot be given back" in caplog.text

    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.05)
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        await publish_numbered(broker, "orders", range(2))
        subscription = await broker.subscribe("orders", prefetch=2)
        first, second = await take(subscription, 2)
        with closing(sqlite3.connect(path, isolation_level=None)) as hog:
            hog.execute("BEGIN IMMEDIATE")
            with pytest.raises(BrokerUnavailableError, match="another process"):
                await broker.publish("orders", numbered(3))
            with pytest.raises(BrokerUnavailableError, match="another process"):
                await second.move("orders", second.message)
            # It cannot be taken off, so it will come again: that is what losing a delivery means.
            with pytest.raises(DeliveryLostError, match="another process"):
                await first.done()
            with pytest.raises(BrokerUnavailableError, match="another process"):
                await take(subscription, 1)
            await until(is_reported)
            hog.execute("ROLLBACK")
        # The file can be written again, so what was in flight comes back before the lease ends.
        assert await drain(broker, "orders", 2) == [numbered(0), numbered(1)]


async def test_what_only_reads_waits_for_no_process_that_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.05)
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        await publish_numbered(broker, "orders", range(3))
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            assert await broker.depth("orders") == 3
            assert await broker.peek("orders", limit=1) == [numbered(0)]
            assert await broker.receivers("orders") == 0
            assert not await broker.is_marked("orders", "1")


def test_counting_reads_no_message_however_many_there_are(path: Path) -> None:
    asked: list[str] = []
    with closing(Session(str(path), 60.0, time.time)) as session:
        session.run([Job(lambda store: store.create_queue("orders"))])
        connection = session._current().connection
        connection.set_trace_callback(asked.append)
        session.run([Job(lambda store: store.depth("orders"), reads=True)])
        session.run([Job(lambda store: store.receivers("orders"), reads=True)])
        connection.set_trace_callback(None)
        depth, receivers = [
            connection.execute(f"EXPLAIN {query}").fetchall()
            for query in asked
            if query.startswith("SELECT count(*)")
        ]
    # The index has all that is asked for: no column of a row is looked at.
    assert "Column" not in [opcode for _, opcode, *_ in depth]
    tables = [opcode for _, opcode, *_ in receivers if opcode == "OpenRead"]
    assert len(tables) == 1  # that of the receivers, a few


async def test_what_reads_sees_what_was_asked_for_before_it(broker: SQLiteBroker) -> None:
    counts = []
    async with asyncio.TaskGroup() as group:  # queued together, so that they share transactions
        for number in range(20):
            group.create_task(broker.publish("orders", numbered(number)))
            counts += [group.create_task(broker.depth("orders")) for _ in range(2)]
    assert [counted.result() for counted in counts] == [n // 2 + 1 for n in range(40)]


async def test_all_that_waits_for_a_locked_file_fails_after_one_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 1.0)
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        with closing(sqlite3.connect(path, isolation_level=None)) as hog:
            hog.execute("BEGIN IMMEDIATE")
            with anyio.fail_after(LIMIT):  # of a minute, if each waits by itself
                results = await asyncio.gather(
                    *(broker.publish("orders", numbered(number)) for number in range(60)),
                    return_exceptions=True,
                )
    assert {type(result) for result in results} == {BrokerUnavailableError}


async def test_the_log_is_copied_back_when_it_has_grown(path: Path) -> None:
    log = path.with_name(f"{path.name}-wal")
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        for _ in range(24):
            await broker.publish("orders", Message(body=bytes(2**20)))
        await broker.depth("orders")  # the last of them is behind us
        assert log.stat().st_size < 8 * 2**20
        assert await broker.depth("orders") == 24


async def test_the_log_is_written_over_and_not_made_longer_again(path: Path) -> None:
    log = path.with_name(f"{path.name}-wal")
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("orders")
        sizes = []
        for _ in range(12):  # three times as much as is copied back at once
            await broker.publish("orders", Message(body=bytes(2**20)))
            sizes.append(log.stat().st_size)
        assert min(sizes[4:]) > 3 * 2**20
        assert max(sizes) < 8 * 2**20


async def test_the_log_of_a_file_that_is_reached_by_a_link_is_copied_back_too(
    path: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    async with SQLiteBroker(link) as broker:
        await broker.create_queue("orders")
        for _ in range(24):
            await broker.publish("orders", Message(body=bytes(2**20)))
        await broker.depth("orders")
        assert path.with_name(f"{path.name}-wal").stat().st_size < 8 * 2**20


async def test_a_reader_holds_up_nobody_who_stores(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 3600.0)  # if anything waits for the reader
    log = path.with_name(f"{path.name}-wal")
    async with SQLiteBroker(path) as broker, SQLiteBroker(path) as other:
        await broker.create_queue("orders")
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM messages").fetchone()
            with anyio.fail_after(LIMIT):
                for _ in range(12):  # three times as much as is copied back at once
                    await broker.publish("orders", Message(body=bytes(2**20)))
                    await other.publish("orders", numbered(1))
            assert reader.execute("SELECT count(*) FROM messages").fetchone() == (0,)
        assert log.stat().st_size > 8 * 2**20  # what is younger than the reader has to stay

        for _ in range(12):
            await broker.publish("orders", Message(body=bytes(2**20)))
        await broker.depth("orders")

        assert log.stat().st_size < 8 * 2**20
        assert await broker.depth("orders") == 36


async def test_a_damaged_row_is_delivered_and_holds_up_nothing(
    path: Path, broker: SQLiteBroker, caplog: pytest.LogCaptureFixture
) -> None:
    await publish_numbered(broker, "orders", range(3))
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("""UPDATE messages SET properties = '{"x' WHERE body = '0' OR body = x'30'""")
        other.execute("""UPDATE messages SET properties = '{"y":1}' WHERE body = x'31'""")

    deliveries = await take(await broker.subscribe("orders", prefetch=3), 3)

    assert [delivery.message.headers for delivery in deliveries] == [
        {UNREADABLE: '{"x'},
        {UNREADABLE: '{"y":1}'},
        {},
    ]
    damaged = "the stored properties are damaged"
    assert [delivery.message.unreadable for delivery in deliveries] == [damaged, damaged, None]
    assert [delivery.message.body for delivery in deliveries] == [b"0", b"1", b"2"]
    assert "cannot be read" in caplog.text
