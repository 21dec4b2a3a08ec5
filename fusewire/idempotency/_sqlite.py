"""The store on SQLite by the standard library's driver."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Literal, Self

from fusewire._validation import check_callable
from fusewire.errors import SettingsError
from fusewire.idempotency._base import SyncStore
from fusewire.idempotency._sql import TABLE, Dialect, Sql
from fusewire.idempotency._store import Rows, Transaction, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fusewire.idempotency._sql import Parameters
    from fusewire.idempotency._steps import Execute

_OLDEST = (3, 35, 0)  # it has RETURNING
_HANDLERS = "fusewire_handler"  # the savepoint

_PRIMARY = 0xFF  # the lowest byte of an extended error code
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_CANNOT = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL})


def trouble_of(error: BaseException) -> Trouble:
    """Return what an error of `sqlite3` means."""
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(error, sqlite3.Error) or code is None:
        return Trouble.OTHER
    if code & _PRIMARY in _BUSY:
        return Trouble.BUSY
    return Trouble.UNAVAILABLE if code & _PRIMARY in _CANNOT else Trouble.OTHER


class HandlersConnection(sqlite3.Connection):
    """A connection whose transaction belongs to the server.

    A handler's `commit` and `rollback`, and the end of its ``with connection:`` block, reach the
    savepoint that was set for it. So they mean to the handler what they always do, and the server
    alone commits. What a handler commits itself stays when its later work is refused.
    """

    served = False
    """Whether a handler works with it."""

    def commit(self) -> None:
        """Keep what was done so far, also if the handler then ends with a final refusal."""
        if not self.served:
            super().commit()
            return
        self.execute(f"RELEASE {_HANDLERS}")
        self.execute(f"SAVEPOINT {_HANDLERS}")

    def rollback(self) -> None:
        """Undo what was done since the last commit, or since the handler began."""
        if not self.served:
            super().rollback()
            return
        self.execute(f"ROLLBACK TO {_HANDLERS}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        if kind is None:
            self.commit()
        else:
            self.rollback()
        return False


class _SQLiteTransaction(Transaction):
    """A transaction that has the database's write lock."""

    def __init__(self, store: SQLiteStore, connection: HandlersConnection) -> None:
        self._store = store
        self._connection = connection

    def begin(self) -> None:
        """It has begun."""

    @property
    def is_open(self) -> bool:
        return self._connection.in_transaction

    def lend(self) -> HandlersConnection:
        self._connection.execute(f"SAVEPOINT {_HANDLERS}")
        self._connection.served = True
        return self._connection

    def execute(self, sql: str, parameters: Parameters) -> Rows:
        cursor = self._connection.cursor()
        cursor.row_factory = None  # whatever the handler's statements give
        return cursor.execute(sql, parameters).fetchall()

    def settle(self) -> None:
        self._connection.served = False
        self._connection.execute(f"RELEASE {_HANDLERS}")

    def undo(self) -> bool:
        self._connection.served = False
        self._connection.execute(f"ROLLBACK TO {_HANDLERS}")
        self._connection.execute(f"RELEASE {_HANDLERS}")
        return True

    def commit(self, last: Execute | None = None) -> bool:
        if last is not None and not self.execute(last.sql, last.parameters):
            return False
        self._connection.execute("COMMIT")
        self._store.keep(self._connection)
        return True

    def rollback(self) -> None:
        self._connection.served = False
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        else:
            self._store.keep(self._connection)


class SQLiteStore(SyncStore):
    """Keys in an SQLite database, by the standard library's driver. `current` is a connection.

    The connection is a `sqlite3.Connection` in autocommit mode, inside a transaction that has the
    write lock. The handler's `commit` and `rollback` reach a savepoint only. SQLite has one writer:
    calls of declared methods run one after the other, in all processes, from claim to commit.

    The store opens connections as calls need them, and keeps them until `close`.

    Args:
        path: the database's file.
        table: the table's name.
        prepare: called with each new connection, for ``PRAGMA foreign_keys`` for example.

    Raises:
        SettingsError: the table's name cannot be one, or SQLite is older than 3.35.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        table: str = TABLE,
        prepare: Callable[[sqlite3.Connection], object] | None = None,
    ) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise SettingsError(
                f"SQLite must be 3.35 or later, got {sqlite3.sqlite_version}: install a Python "
                "that is built with a later one"
            )
        if prepare is not None:
            check_callable("prepare", prepare, "the connection")
        self._path = os.fspath(path)
        self._prepare = prepare
        super().__init__(Sql(Dialect.SQLITE, table))
        self._idle: deque[HandlersConnection] = deque()
        self._process = os.getpid()
        self._closed = False

    def begin_transaction(self, wait: float) -> _SQLiteTransaction:
        """Take the write lock, waiting at most `wait` seconds."""
        connection = self._connect()
        try:
            connection.execute(f"PRAGMA busy_timeout = {max(1, round(wait * 1000))}")
            connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self.keep(connection)
            raise
        return _SQLiteTransaction(self, connection)

    def trouble(self, error: BaseException) -> Trouble:
        """Return what an error means."""
        return trouble_of(error)

    def keep(self, connection: HandlersConnection) -> None:
        """Keep a connection for another call."""
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the connections; those in use when they are given back."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> HandlersConnection:
        if self._closed:
            raise sqlite3.ProgrammingError("the store is closed")
        if self._process != os.getpid():
            # A forked child must not use its parent's connections, nor close them.
            self._idle, self._process = deque(), os.getpid()
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        connection = sqlite3.connect(
            self._path,
            isolation_level=None,
            check_same_thread=False,  # a connection is one thread's at a time
            factory=HandlersConnection,
        )
        if self._prepare is not None:
            self._prepare(connection)
        return connection
