"""The stores on PostgreSQL by psycopg 3; the extra is ``fusewire[psycopg]``."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from fusewire._validation import check, instance_of
from fusewire.idempotency._base import AioStore, SyncStore
from fusewire.idempotency._postgres import lock_timeout, trouble_of_sqlstate
from fusewire.idempotency._sql import TABLE, Dialect, Sql, with_parameters
from fusewire.idempotency._store import Rows, Trouble

if TYPE_CHECKING:
    from fusewire.idempotency._sql import Parameters


__all__ = ["AioPsycopgStore", "PsycopgStore"]

_BYTES = frozenset({"claim", "new_claim", "fingerprint", "details", "trailers", "reply"})
"""Parameters that are sent as they are: as text a reply would be twice as long."""


def trouble_of(error: BaseException) -> Trouble:
    """Return what an error of psycopg means."""
    if not isinstance(error, psycopg.Error):
        return Trouble.OTHER
    lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
    return trouble_of_sqlstate(error.sqlstate, lost=lost)


@functools.lru_cache(maxsize=64)
def _text(sql: str) -> bytes:
    return with_parameters(sql, lambda name: f"%({name}){'b' if name in _BYTES else 's'}").encode()


def _is_over(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Return whether a handler has ended the transaction. A connection that was lost has not."""
    return connection.info.transaction_status is TransactionStatus.IDLE


class _PsycopgTransaction:
    """A transaction on a connection of the pool."""

    def __init__(
        self, pool: ConnectionPool[Any], connection: psycopg.Connection[Any], wait: float
    ) -> None:
        self._pool = pool
        self._connection = connection
        self._wait = lock_timeout(wait)
        self._block = connection.transaction()  # in it, a handler's commit() raises
        self._transaction = self._block.__enter__()
        self._in_block = True

    @property
    def is_open(self) -> bool:
        return not _is_over(self._connection)

    def lend(self) -> psycopg.Connection[Any]:
        return self._connection

    def execute(self, sql: str, parameters: Parameters) -> Rows:
        with self._connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            cursor.execute(_text(sql), {"wait": self._wait, **parameters})
            return cursor.fetchall()

    def settle(self) -> None:
        """Everything has been sent."""

    def undo(self) -> bool:
        return False

    def commit(self) -> None:
        self._in_block = False
        self._block.__exit__(None, None, None)
        self._pool.putconn(self._connection)

    def rollback(self) -> None:
        if self._in_block:
            self._in_block = False
            self._transaction.force_rollback = True  # an exception would cost more than the rest
            with contextlib.suppress(psycopg.Error):
                self._block.__exit__(None, None, None)
        if not _is_over(self._connection):
            self._connection.close()
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
        super().__init__(Sql(Dialect.POSTGRESQL, table, schema))
        self.most_calls = pool.max_size

    def begin_transaction(self, wait: float) -> _PsycopgTransaction:
        """Begin a transaction; its claim waits at most `wait` seconds for another call."""
        connection = self._pool.getconn()
        try:
            return _PsycopgTransaction(self._pool, connection, wait)
        except BaseException:
            self._pool.putconn(connection)
            raise

    def trouble(self, error: BaseException) -> Trouble:
        """Return what an error means."""
        return trouble_of(error)


class _AioPsycopgTransaction:
    """A transaction on a connection of the pool."""

    def __init__(
        self, pool: AsyncConnectionPool[Any], connection: psycopg.AsyncConnection[Any], wait: float
    ) -> None:
        self._pool = pool
        self._connection = connection
        self._wait = lock_timeout(wait)
        self._block = connection.transaction()  # in it, a handler's commit() raises
        self._in_block = False

    async def begun(self) -> Self:
        """Begin it."""
        self._transaction = await self._block.__aenter__()
        self._in_block = True
        return self

    @property
    def is_open(self) -> bool:
        return not _is_over(self._connection)

    def lend(self) -> psycopg.AsyncConnection[Any]:
        return self._connection

    async def execute(self, sql: str, parameters: Parameters) -> Rows:
        async with self._connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            await cursor.execute(_text(sql), {"wait": self._wait, **parameters})
            return await cursor.fetchall()

    async def settle(self) -> None:
        """Everything has been sent."""

    async def undo(self) -> bool:
        return False

    async def commit(self) -> None:
        self._in_block = False
        await self._block.__aexit__(None, None, None)
        await self._pool.putconn(self._connection)

    async def rollback(self) -> None:
        if self._in_block:
            self._in_block = False
            self._transaction.force_rollback = True  # an exception would cost more than the rest
            with contextlib.suppress(psycopg.Error):
                await self._block.__aexit__(None, None, None)
        if not _is_over(self._connection):
            await self._connection.close()
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
        super().__init__(Sql(Dialect.POSTGRESQL, table, schema))

    async def begin_transaction(self, wait: float) -> _AioPsycopgTransaction:
        """Begin a transaction; its claim waits at most `wait` seconds for another call."""
        connection = await self._pool.getconn()
        try:
            return await _AioPsycopgTransaction(self._pool, connection, wait).begun()
        except BaseException:
            await self._pool.putconn(connection)
            raise

    def trouble(self, error: BaseException) -> Trouble:
        """Return what an error means."""
        return trouble_of(error)
