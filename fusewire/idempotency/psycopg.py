"""The stores on PostgreSQL by psycopg 3; the extra is ``fusewire[psycopg]``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from fusewire._validation import check, instance_of
from fusewire.idempotency._base import AioStore, SyncStore
from fusewire.idempotency._postgres import lock_timeout, trouble_of_sqlstate
from fusewire.idempotency._psycopg_trip import (
    COMMIT,
    NOT_PREPARED,
    ROLLBACK,
    ROLLBACK_TO,
    SAVEPOINT,
    Preparations,
    Statement,
    begin,
    rows_of,
    statement,
    trip,
)
from fusewire.idempotency._sql import TABLE, Dialect, Sql
from fusewire.idempotency._store import AioTransaction, Transaction, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.pq.abc import PGresult

    from fusewire.idempotency._psycopg_trip import Talk
    from fusewire.idempotency._sql import Parameters
    from fusewire.idempotency._steps import Execute
    from fusewire.idempotency._store import Rows


__all__ = ["AioPsycopgStore", "PsycopgStore"]


def trouble_of(error: BaseException) -> Trouble:
    """Return what an error of psycopg means."""
    if not isinstance(error, psycopg.Error):
        return Trouble.OTHER
    lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
    if isinstance(error, NOT_PREPARED):
        return Trouble.CONFLICT  # done again, it is not asked for by its name
    return trouble_of_sqlstate(error.sqlstate, lost=lost)


def _is_over(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Return whether a handler has ended the transaction. A connection that was lost has not."""
    return connection.info.transaction_status is TransactionStatus.IDLE


_OWN = ("commit", "rollback")
_Connection = TypeVar("_Connection", psycopg.Connection[Any], psycopg.AsyncConnection[Any])


def _refuse(*_: object) -> Never:
    raise psycopg.ProgrammingError(
        "commit() and rollback() end the transaction, and it is the server that ends it. For a "
        "part that may fail use connection.transaction()"
    )


async def _aio_refuse(*_: object) -> Never:
    _refuse()


class _Begun(Generic[_Connection]):
    """What the transactions of both kinds of connections share."""

    def __init__(self, connection: _Connection, preparations: Preparations, wait: float) -> None:
        self._connection: _Connection = connection
        self._wait = lock_timeout(wait)
        self._lent = False
        self._encoding = connection.info.encoding
        self._preparations = preparations
        self._names = preparations.names(connection)
        self._begins = True

    @property
    def is_open(self) -> bool:
        return not _is_over(self._connection)

    def _first(self, statements: list[Statement]) -> list[Statement]:
        """Return what begins the transaction, and statements behind it."""
        self._begins = False
        return [begin(self._connection), *statements]

    def _statement(self, sql: str, parameters: Parameters) -> Statement:
        return statement(sql, {"wait": self._wait, **parameters}, self._encoding)

    def _last(self, last: Execute) -> Statement:
        """Return a statement that fails unless it has one row: a COMMIT behind it commits not."""
        sql = f"WITH done AS ({last.sql}) SELECT 1 / count(*) FROM done"  # noqa: S608 - ours
        return self._statement(sql, last.parameters)

    def _talk(self, statements: list[Statement]) -> Talk:
        return trip(self._connection.pgconn, statements, self._names, self._encoding)

    def _forget(self, error: psycopg.Error) -> None:
        """Take note that a name is gone, or another's, and use none in this transaction."""
        self._preparations.forget(self._connection, error)
        self._names = None

    def _hide(self, refuse: Callable[..., object]) -> None:
        """Have the handler's commit and rollback refused, as psycopg's own blocks do.

        Such a block's BEGIN and COMMIT would be round trips of their own. An attribute hides a
        method.
        """
        self._lent = True
        vars(self._connection).update(dict.fromkeys(_OWN, refuse))

    def _show(self) -> None:
        for name in _OWN:
            vars(self._connection).pop(name, None)


class _PsycopgTransaction(_Begun[psycopg.Connection[Any]], Transaction):
    """A transaction on a connection of the pool. It begins with its first statement."""

    def __init__(
        self,
        pool: ConnectionPool[Any],
        connection: psycopg.Connection[Any],
        preparations: Preparations,
        wait: float,
    ) -> None:
        super().__init__(connection, preparations, wait)
        self._pool = pool

    def begin(self) -> None:
        self._open([])

    def lend(self) -> psycopg.Connection[Any]:
        self._hide(_refuse)
        return self._connection

    def execute(self, sql: str, parameters: Parameters) -> Rows:
        statement = self._statement(sql, parameters)
        if self._begins:
            results = self._open([statement])
        else:
            try:
                results = self._trip([statement])
            except NOT_PREPARED as error:
                self._forget(error)
                raise  # what was done in the transaction is done again with it
        return rows_of(results[-1])

    def _open(self, statements: list[Statement]) -> list[PGresult]:
        """Begin the transaction with statements."""
        opening = self._first(statements)
        try:
            return self._trip(opening)
        except NOT_PREPARED as error:
            self._forget(error)
            if not _is_over(self._connection):  # BEGIN itself may be what has no name
                self._trip([ROLLBACK])
            return self._trip(opening)

    def settle(self) -> None:
        """Everything has been sent."""

    def undo(self) -> bool:
        return False

    def commit(self, last: Execute | None = None) -> bool:
        try:
            self._finish([] if last is None else [self._last(last)])
        except psycopg.errors.DivisionByZero:
            return False
        self._give_back()
        return True

    def _finish(self, last: list[Statement]) -> None:
        if self._begins:
            self._open([*last, COMMIT])
            return
        if self._names is None:
            self._trip([*last, COMMIT])
            return
        try:
            self._trip([SAVEPOINT, *last, COMMIT])
        except NOT_PREPARED as error:
            # A name that is gone has failed the transaction. The handler's work is kept.
            self._forget(error)
            self._trip([ROLLBACK_TO, *last, COMMIT])

    def rollback(self) -> None:
        with contextlib.suppress(psycopg.Error):
            if self._lent:
                self._show()
                self._connection.rollback()
            elif not _is_over(self._connection):
                # psycopg's own has it forget what it has prepared, for a handler's sake.
                self._trip([ROLLBACK])
        if not _is_over(self._connection):
            self._connection.close()
        self._give_back()

    def _trip(self, statements: list[Statement]) -> list[PGresult]:
        with self._connection.lock:
            return self._connection.wait(self._talk(statements))

    def _give_back(self) -> None:
        self._show()
        self._pool.putconn(self._connection)


class PsycopgStore(SyncStore):
    """Keys in PostgreSQL, by psycopg 3. `current` is a `psycopg.Connection`.

    The handler's own `commit` and `rollback` raise, as within any ``connection.transaction()``
    block. For a part that may fail it uses ``connection.transaction()``, which is a savepoint.

    Args:
        pool: a `psycopg_pool.ConnectionPool` that is open. Each call of a declared method holds one
            of its connections, so it needs as many as the server has threads.
        table: the table's name.
        schema: the schema it is in; None for the first of the connection's search path.

    Raises:
        SettingsError: a name cannot be one.
    """

    def __init__(
        self, pool: ConnectionPool[Any], *, table: str = TABLE, schema: str | None = None
    ) -> None:
        self._pool = check("pool", pool, instance_of(ConnectionPool))
        self._preparations = Preparations()
        super().__init__(Sql(Dialect.POSTGRESQL, table, schema))
        self.most_calls = pool.max_size

    def begin_transaction(self, wait: float) -> _PsycopgTransaction:
        """Begin a transaction; its claim waits at most `wait` seconds for another call."""
        connection = self._pool.getconn()
        return _PsycopgTransaction(self._pool, connection, self._preparations, wait)

    def trouble(self, error: BaseException) -> Trouble:
        """Return what an error means."""
        return trouble_of(error)


class _AioPsycopgTransaction(_Begun[psycopg.AsyncConnection[Any]], AioTransaction):
    """A transaction on a connection of the pool. It begins with its first statement."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        connection: psycopg.AsyncConnection[Any],
        preparations: Preparations,
        wait: float,
    ) -> None:
        super().__init__(connection, preparations, wait)
        self._pool = pool

    async def begin(self) -> None:
        await self._open([])

    def lend(self) -> psycopg.AsyncConnection[Any]:
        self._hide(_aio_refuse)
        return self._connection

    async def execute(self, sql: str, parameters: Parameters) -> Rows:
        statement = self._statement(sql, parameters)
        if self._begins:
            results = await self._open([statement])
        else:
            try:
                results = await self._trip([statement])
            except NOT_PREPARED as error:
                self._forget(error)
                raise  # what was done in the transaction is done again with it
        return rows_of(results[-1])

    async def _open(self, statements: list[Statement]) -> list[PGresult]:
        """Begin the transaction with statements."""
        opening = self._first(statements)
        try:
            return await self._trip(opening)
        except NOT_PREPARED as error:
            self._forget(error)
            if not _is_over(self._connection):  # BEGIN itself may be what has no name
                await self._trip([ROLLBACK])
            return await self._trip(opening)

    async def settle(self) -> None:
        """Everything has been sent."""

    async def undo(self) -> bool:
        return False

    async def commit(self, last: Execute | None = None) -> bool:
        try:
            await self._finish([] if last is None else [self._last(last)])
        except psycopg.errors.DivisionByZero:
            return False
        await self._give_back()
        return True

    async def _finish(self, last: list[Statement]) -> None:
        if self._begins:
            await self._open([*last, COMMIT])
            return
        if self._names is None:
            await self._trip([*last, COMMIT])
            return
        try:
            await self._trip([SAVEPOINT, *last, COMMIT])
        except NOT_PREPARED as error:
            # A name that is gone has failed the transaction. The handler's work is kept.
            self._forget(error)
            await self._trip([ROLLBACK_TO, *last, COMMIT])

    async def rollback(self) -> None:
        with contextlib.suppress(psycopg.Error):
            if self._lent:
                self._show()
                await self._connection.rollback()
            elif not _is_over(self._connection):
                # psycopg's own has it forget what it has prepared, for a handler's sake.
                await self._trip([ROLLBACK])
        if not _is_over(self._connection):
            await self._connection.close()
        await self._give_back()

    async def _trip(self, statements: list[Statement]) -> list[PGresult]:
        async with self._connection.lock:
            return await self._connection.wait(self._talk(statements))

    async def _give_back(self) -> None:
        self._show()
        await self._pool.putconn(self._connection)


class AioPsycopgStore(AioStore):
    """Keys in PostgreSQL, by psycopg 3. `current` is a `psycopg.AsyncConnection`.

    The handler's own `commit` and `rollback` raise, as within any ``connection.transaction()``
    block. For a part that may fail it uses ``connection.transaction()``, which is a savepoint.

    Args:
        pool: a `psycopg_pool.AsyncConnectionPool` that is open. Each call of a declared method
            holds one of its connections.
        table: the table's name.
        schema: the schema it is in; None for the first of the connection's search path.

    Raises:
        SettingsError: a name cannot be one.
    """

    def __init__(
        self, pool: AsyncConnectionPool[Any], *, table: str = TABLE, schema: str | None = None
    ) -> None:
        self._pool = check("pool", pool, instance_of(AsyncConnectionPool))
        self._preparations = Preparations()
        super().__init__(Sql(Dialect.POSTGRESQL, table, schema))

    async def begin_transaction(self, wait: float) -> _AioPsycopgTransaction:
        """Begin a transaction; its claim waits at most `wait` seconds for another call."""
        connection = await self._pool.getconn()
        return _AioPsycopgTransaction(self._pool, connection, self._preparations, wait)

    def trouble(self, error: BaseException) -> Trouble:
        """Return what an error means."""
        return trouble_of(error)
