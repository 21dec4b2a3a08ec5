"""What befalls the embedded broker's file while it is open, and what its name leads to then."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

from fusewire.brokers import SQLiteBroker, Topology
from fusewire.brokers.sqlite._store import Store
from tests.support.messages import number_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import pytest

    from fusewire.brokers import Message, Station


def delete_all(path: Path) -> None:
    """Delete the file, its log and its index."""
    for name in (path, log_of(path), index_of(path)):
        name.unlink(missing_ok=True)  # the broker may have left them in between


def delete_file(path: Path) -> None:
    """Delete the file alone."""
    path.unlink()


def move_file(path: Path) -> None:
    """Rename the file."""
    path.rename(path.with_name("moved.db"))


def replace_file(path: Path) -> None:
    """Put back what a backup holds: an older state of the file, without its log."""
    shutil.copy(path.with_name("backup.db"), path.with_name("restored.db"))
    path.with_name("restored.db").replace(path)


def replace_all(path: Path) -> None:
    """Replace the file, and delete its log and its index."""
    delete_both(path)
    replace_file(path)


def delete_log(path: Path) -> None:
    """Delete the log alone."""
    log_of(path).unlink(missing_ok=True)  # others may have left it


def delete_index(path: Path) -> None:
    """Delete the index alone."""
    index_of(path).unlink(missing_ok=True)


def delete_both(path: Path) -> None:
    """Delete log and index."""
    delete_log(path)
    delete_index(path)


def log_of(path: Path) -> Path:
    """Return the name of the log."""
    return path.with_name(f"{path.name}-wal")


def index_of(path: Path) -> Path:
    """Return the name of the index."""
    return path.with_name(f"{path.name}-shm")


LOSSES = [delete_all, delete_file, move_file, replace_file, replace_all]
TEARS = [delete_log, delete_index, delete_both]


@asynccontextmanager
async def open_with_backup(path: Path) -> AsyncIterator[SQLiteBroker]:
    """Open a broker whose queues are made, and leave a backup of its file beside it."""
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
    """Copy the log into the file."""
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def read_only(path: Path) -> sqlite3.Connection:
    """Connect to the file as a program does that only reads, such as a backup."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)


async def found_by_name(path: Path) -> list[int]:
    """Return the numbers that a process finds that knows nothing but the file's name."""
    async with SQLiteBroker(path) as other:
        return [number_of(message) for message in await other.peek("orders", limit=1_000_000)]


def in_the_middle(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Act in the transaction of the next publish, when it has been written."""
    publish, acts = Store.publish, [act]

    def publish_and_act(self: Store, to: Station | str, message: Message, delay: float) -> None:
        publish(self, to, message, delay)
        while acts:
            acts.pop()()

    monkeypatch.setattr(Store, "publish", publish_and_act)


def confirmed_in(log: Path) -> set[int]:
    """Return the numbers that a publisher has written down as stored."""
    # A last line that was cut off was not reported to anybody.
    return {int(line) for line in log.read_text().splitlines(keepends=True) if "\n" in line}
