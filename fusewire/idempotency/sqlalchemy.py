"""The stores on PostgreSQL and SQLite by SQLAlchemy; the extra is ``fusewire[sqlalchemy]``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncTransaction,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, sessionmaker

from fusewire._validation import invalid
from fusewire.errors import SettingsError
from fusewire.idempotency._base import AioStore, SyncStore
from fusewire.idempotency._postgres import lock_timeout, trouble_of_sqlstate
from fusewire.idempotency._sql import TABLE, Dialect, Sql, check_name, index_name
from fusewire.idempotency._sqlite import trouble_of as trouble_of_sqlite
from fusewire.idempotency._store import AioTransaction, Transaction, Trouble

if TYPE_CHECKING:
    from fusewire.idempotency._sql import Parameters
    from fusewire.idempotency._steps import Execute
    from fusewire.idempotency._store import Rows

__all__ = ["AioSQLAlchemyStore", "SQLAlchemyStore", "table"]

# The handler's commit and rollback reach a savepoint. In the mode "rollback_only" its rollback
# would end the transaction that holds the claim.
_JOINED = "create_savepoint"
_AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}

_IDLE = 0
"""What libpq, and psycopg, call a connection without a transaction."""

_text = functools.lru_cache(maxsize=64)(sa.text)


def table(metadata: sa.MetaData, *, name: str = TABLE, schema: str | None = None) -> sa.Table:
    """Describe the table of the keys, so that Alembic makes it and does not drop it.

    Call it where your models are defined, with their ``MetaData``.

    Args:
        metadata: what the table is added to.
        name: the table's name, as the store is given it.
        schema: the schema it is in, as the store is given it.
    """
    check_name("name", name)
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    described = sa.Table(
        name,
        metadata,
        sa.Column("scope", text, primary_key=True),
        sa.Column("method", text, primary_key=True),
        sa.Column("idempotency_key", text, primary_key=True),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("claim", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("code", sa.Integer),
        sa.Column("details", sa.LargeBinary),
        sa.Column("trailers", sa.LargeBinary),
        sa.Column("reply", sa.LargeBinary),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger),
        schema=schema,
    )
    sa.Index(index_name(name), described.c.expires_at_ms)
    return described


def trouble_of(error: BaseException, dialect: Dialect) -> Trouble:
    """Return what an error of SQLAlchemy means."""
    if isinstance(error, exc.TimeoutError | OSError):  # of the pool; asyncpg's, when it connects
        return Trouble.UNAVAILABLE
    if not isinstance(error, exc.DBAPIError):
        return Trouble.OTHER
    if dialect is Dialect.SQLITE:
        return trouble_of_sqlite(error.orig or error)
    sqlstate = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    unanswered = isinstance(error, exc.OperationalError | exc.InterfaceError) and sqlstate is None
    return trouble_of_sqlstate(sqlstate, lost=error.connection_invalidated or unanswered)


def _dialect_of(engine: sa.Engine) -> Dialect:
    try:
        return Dialect(engine.dialect.name)
    except ValueError:
        raise SettingsError(
            f"the engine must be one of PostgreSQL or SQLite, got {engine.dialect.name}"
        ) from None


def _most_connections(pool: sa.Pool) -> int | None:
    """Return how many connections a pool gives at a time; None if that is not limited or known."""
    overflow = getattr(pool, "_max_overflow", -1)  # SQLAlchemy has no public name for it
    if not isinstance(pool, sa.QueuePool) or overflow < 0:
        return None
    return int(pool.size() + overflow)


def _check_factory(factory: sessionmaker[Any] | async_sessionmaker[Any]) -> Any:
    """Return what a factory's sessions are bound to.

    Raises:
        SettingsError: they are not all bound to one engine.
    """
    if factory.kw.get("binds"):
        raise SettingsError(
            "the sessionmaker must have one bind and no binds, got binds: what goes to another "
            "database is not committed together with the key"
        )
    return factory.kw.get("bind")


def _lock(connection: sa.Connection, wait: float) -> None:
    """Take SQLite's write lock, and leave the connection's own patience as it was."""
    former = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {max(1, round(wait * 1000))}")
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {former}")


def _is_over(connection: sa.Connection | None) -> bool:
    """Return whether a handler has ended the transaction in SQL, which SQLAlchemy does not see."""
    driver: Any = None if connection is None else connection.connection.driver_connection
    if hasattr(driver, "is_in_transaction"):  # asyncpg
        return not (driver.is_closed() or driver.is_in_transaction())
    if hasattr(driver, "in_transaction"):  # SQLite
        return not driver.in_transaction
    return bool(getattr(driver, "info", None) and driver.info.transaction_status == _IDLE)


class _SQLAlchemyTransaction(Transaction):
    """A transaction on a connection of the engine."""

    def __init__(self, store: SQLAlchemyStore, connection: sa.Connection, wait: float) -> None:
        self._store = store
        self._wait = wait
        self._connection = connection
        self._session: Session | None = None
        if store.sql.dialect is Dialect.SQLITE:
            # The driver's own BEGIN would take the lock too late, with the first write.
            connection.execution_options(**_AUTOCOMMIT)
        self._transaction = connection.begin()
        if store.sql.dialect is Dialect.SQLITE:
            _lock(connection, wait)

    def begin(self) -> None:
        """It has begun."""

    @property
    def is_open(self) -> bool:
        # A connection that was lost has not been ended by the handler.
        return self._connection.invalidated or (
            self._transaction.is_active and not _is_over(self._connection)
        )

    def lend(self) -> Session | sa.Connection:
        if self._store.factory is None:
            return self._connection
        self._session = self._store.factory(bind=self._connection, join_transaction_mode=_JOINED)
        return self._session

    def execute(self, sql: str, parameters: Parameters) -> Rows:
        values = {"wait": lock_timeout(self._wait), **parameters}
        return self._connection.execute(_text(sql), values).fetchall()

    def settle(self) -> None:
        if self._session is not None:
            self._session.commit()
            self._session.close()

    def undo(self) -> bool:
        if self._session is None:
            return False
        self._session.rollback()
        self._session.close()
        return True

    def commit(self, last: Execute | None = None) -> bool:
        if last is not None and not self.execute(last.sql, last.parameters):
            return False
        self._transaction.commit()
        self._connection.close()
        return True

    def rollback(self) -> None:
        try:
            if self._session is not None:
                self._session.close()
        except exc.SQLAlchemyError:
            self._connection.invalidate()
        finally:
            self._connection.close()  # it rolls back what has begun, also by the handler


class SQLAlchemyStore(SyncStore):
    """Keys in PostgreSQL or SQLite, by SQLAlchemy. `current` is a `Session` or a `Connection`.

    A session's own `commit` and `rollback` reach a savepoint: they mean to the handler what they
    always do, and the server alone commits. A connection's end the server's transaction, so a
    handler that works with a connection leaves them alone, or uses ``connection.begin_nested()``.

    Args:
        source: a `sessionmaker` that is bound to an engine, or an `Engine`. Each call of a declared
            method holds one connection of its pool. SQLAlchemy's default is 15; give
            ``pool_size`` the number of the server's threads, and ``pool_pre_ping=True``.
        table: the table's name.
        schema: the schema it is in; None for the first of the connection's search path.

    Raises:
        SettingsError: the engine is of another database, or a name cannot be one.
    """

    def __init__(
        self,
        source: sessionmaker[Any] | sa.Engine,
        *,
        table: str = TABLE,
        schema: str | None = None,
    ) -> None:
        self.factory = source if isinstance(source, sessionmaker) else None
        engine = _check_factory(source) if isinstance(source, sessionmaker) else source
        if not isinstance(engine, sa.Engine):
            raise invalid("source", "a sessionmaker that is bound to an Engine, or one", source)
        self._engine = engine
        super().__init__(Sql(_dialect_of(engine), table, schema))
        self.most_calls = _most_connections(engine.pool)

    def begin_transaction(self, wait: float) -> _SQLAlchemyTransaction:
        """Begin a transaction that waits at most `wait` seconds for another call."""
        connection = self._engine.connect()
        try:
            return _SQLAlchemyTransaction(self, connection, wait)
        except BaseException:
            connection.close()
            raise

    def trouble(self, error: BaseException) -> Trouble:
        """Return what an error means."""
        return trouble_of(error, self.sql.dialect)


class _AioSQLAlchemyTransaction(AioTransaction):
    """A transaction on a connection of the engine."""

    def __init__(self, store: AioSQLAlchemyStore, connection: AsyncConnection, wait: float) -> None:
        self._store = store
        self._wait = wait
        self._connection = connection
        self._session: AsyncSession | None = None
        self._transaction: AsyncTransaction = connection.begin()

    async def begun(self) -> _AioSQLAlchemyTransaction:
        """Begin it."""
        on_sqlite = self._store.sql.dialect is Dialect.SQLITE
        if on_sqlite:
            # The driver's own BEGIN would take the lock too late, with the first write.
            await self._connection.execution_options(**_AUTOCOMMIT)
        await self._transaction.start()
        if on_sqlite:
            await self._connection.run_sync(_lock, self._wait)
        return self

    async def begin(self) -> None:
        """It has begun."""

    @property
    def is_open(self) -> bool:
        # A connection that was lost has not been ended by the handler.
        return self._connection.invalidated or (
            self._transaction.is_active and not _is_over(self._connection.sync_connection)
        )

    def lend(self) -> AsyncSession | AsyncConnection:
        if self._store.factory is None:
            return self._connection
        self._session = self._store.factory(bind=self._connection, join_transaction_mode=_JOINED)
        return self._session

    async def execute(self, sql: str, parameters: Parameters) -> Rows:
        values = {"wait": lock_timeout(self._wait), **parameters}
        return (await self._connection.execute(_text(sql), values)).fetchall()

    async def settle(self) -> None:
        if self._session is not None:
            await self._session.commit()
            await self._session.close()

    async def undo(self) -> bool:
        if self._session is None:
            return False
        await self._session.rollback()
        await self._session.close()
        return True

    async def commit(self, last: Execute | None = None) -> bool:
        if last is not None and not await self.execute(last.sql, last.parameters):
            return False
        await self._transaction.commit()
        await self._connection.close()
        return True

    async def rollback(self) -> None:
        try:
            if self._session is not None:
                await self._session.close()
        except exc.SQLAlchemyError:
            await self._connection.invalidate()
        finally:
            await self._connection.close()  # it rolls back what has begun, also by the handler


class AioSQLAlchemyStore(AioStore):
    """The same as :class:`SQLAlchemyStore` for asyncio: an `AsyncSession` or `AsyncConnection`.

    Args:
        source: an `async_sessionmaker` that is bound to an engine, or an `AsyncEngine`.
        table: the table's name.
        schema: the schema it is in; None for the first of the connection's search path.

    Raises:
        SettingsError: the engine is of another database, or a name cannot be one.
    """

    def __init__(
        self,
        source: async_sessionmaker[Any] | AsyncEngine,
        *,
        table: str = TABLE,
        schema: str | None = None,
    ) -> None:
        self.factory = source if isinstance(source, async_sessionmaker) else None
        engine = _check_factory(source) if isinstance(source, async_sessionmaker) else source
        if not isinstance(engine, AsyncEngine):
            raise invalid(
                "source", "an async_sessionmaker that is bound to an AsyncEngine, or one", source
            )
        self._engine = engine
        super().__init__(Sql(_dialect_of(engine.sync_engine), table, schema))

    async def begin_transaction(self, wait: float) -> _AioSQLAlchemyTransaction:
        """Begin a transaction that waits at most `wait` seconds for another call."""
        connection = await self._engine.connect()
        try:
            return await _AioSQLAlchemyTransaction(self, connection, wait).begun()
        except BaseException:
            await connection.close()
            raise

    def trouble(self, error: BaseException) -> Trouble:
        """Return what an error means."""
        return trouble_of(error, self.sql.dialect)
