"""The store on PostgreSQL by asyncpg; the extra is ``fusewire[asyncpg]``."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import asyncpg

from fusewire._validation import check, instance_of
from fusewire.idempotency._base import AioStore
from fusewire.idempotency._postgres import lock_timeout, trouble_of_sqlstate
from fusewire.idempotency._sql import TABLE, Dialect, Sql, numbered
from fusewire.idempotency._store import AioTransaction

if TYPE_CHECKING:
    from fusewire.idempotency._sql import Parameters
    from fusewire.idempotency._steps import Execute
    from fusewire.idempotency._store import Rows, Trouble

__all__ = ["AsyncpgStore"]

_LOST = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.ConnectionDoesNotExistError)


def trouble_of(error: BaseException) -> Trouble:
    """Return what an error of asyncpg means."""
    sqlstate = getattr(error, "sqlstate", None)
    return trouble_of_sqlstate(sqlstate, lost=isinstance(error, _LOST))


@functools.lru_cache(maxsize=64)
def _text(sql: str) -> tuple[str, list[str]]:
    return numbered(sql)


class _AsyncpgTransaction(AioTransaction):
    """A transaction on a connection of the pool."""

    def __init__(self, pool: Any, connection: Any, wait: float) -> None:
        self._pool = pool
        self._connection = connection
        self._wait = lock_timeout(wait)
        self._transaction = connection.transaction()

    async def begun(self) -> _AsyncpgTransaction:
        """Begin it."""
        await self._transaction.start()
        return self

    async def begin(self) -> None:
        """It has begun."""

    @property
    def is_open(self) -> bool:
        # A connection that was lost has not been ended by the handler. The pool takes it back at
        # once, and then it answers nothing.
        try:
            return bool(self._connection.is_closed() or self._connection.is_in_transaction())
        except asyncpg.InterfaceError:
            return True

    def lend(self) -> Any:
        return self._connection

    async def execute(self, sql: str, parameters: Parameters) -> Rows:
        text, names = _text(sql)
        given = {"wait": self._wait, **parameters}
        rows: Rows = await self._connection.fetch(text, *[given[name] for name in names])
        return rows

    async def settle(self) -> None:
        """Everything has been sent."""

    async def undo(self) -> bool:
        return False

    async def commit(self, last: Execute | None = None) -> bool:
        if last is not None and not await self.execute(last.sql, last.parameters):
            return False
        await self._transaction.commit()
        await self._pool.release(self._connection)
        return True

    async def rollback(self) -> None:
        try:
            await self._transaction.rollback()
        except (*_LOST, asyncpg.PostgresError):  # if the commit has failed, asyncpg refuses
            with contextlib.suppress(asyncpg.InterfaceError):  # the pool has a lost one already
                self._connection.terminate()
        finally:
            with contextlib.suppress(asyncpg.InterfaceError):
                await self._pool.release(self._connection)


class AsyncpgStore(AioStore):
    """Keys in PostgreSQL, by asyncpg. `current` is a connection of the pool.

    For a part that may fail the handler uses ``connection.transaction()``, which is a savepoint.

    Args:
        pool: what `asyncpg.create_pool` has made. Each call of a declared method holds one of its
            connections.
        table: the table's name.
        schema: the schema it is in; None for the first of the connection's search path.

    Raises:
        SettingsError: a name cannot be one.
    """

    def __init__(self, pool: Any, *, table: str = TABLE, schema: str | None = None) -> None:
        self._pool = check("pool", pool, instance_of(asyncpg.Pool))
        super().__init__(Sql(Dialect.POSTGRESQL, table, schema))

    async def begin_transaction(self, wait: float) -> _AsyncpgTransaction:
        """Begin a transaction; its claim waits at most `wait` seconds for another call."""
        connection = await self._pool.acquire()
        try:
            return await _AsyncpgTransaction(self._pool, connection, wait).begun()
        except BaseException:
            with contextlib.suppress(asyncpg.InterfaceError):  # the pool has a lost one already
                await self._pool.release(connection)
            raise

    def trouble(self, error: BaseException) -> Trouble:
        """Return what an error means."""
        return trouble_of(error)
