"""Where a test's server records its keys: every store, each on a database of the test's own."""

from __future__ import annotations

import inspect
import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import psycopg_pool
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fusewire.idempotency import SQLiteStore
from fusewire.idempotency._sql import TABLE, Dialect, Sql
from fusewire.idempotency.asyncpg import AsyncpgStore
from fusewire.idempotency.psycopg import AioPsycopgStore, PsycopgStore
from fusewire.idempotency.sqlalchemy import AioSQLAlchemyStore, SQLAlchemyStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

THREADS = 8


@dataclass(frozen=True)
class Database:
    """A database of one test's own, with the table of the keys and a ledger.

    The ledger has no constraint that keeps an operation from standing in it twice.

    Attributes:
        kind: ``"postgresql"`` or ``"sqlite"``.
        address: libpq's URL, or the file's path.
        schema: the schema of everything, on PostgreSQL.
    """

    kind: Dialect
    address: str
    schema: str | None

    @property
    def ledger(self) -> str:
        return f'"{self.schema}".ledger' if self.schema else "ledger"

    @property
    def keys(self) -> str:
        return Sql(self.kind, TABLE, self.schema).name

    def create(self) -> None:
        ddl = Sql(self.kind, TABLE, self.schema).ddl
        if self.kind is Dialect.SQLITE:
            with closing(sqlite3.connect(self.address)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(f"{ddl}CREATE TABLE ledger (operation TEXT NOT NULL);")
            return
        self.execute(f'CREATE SCHEMA "{self.schema}"')
        self.execute(ddl)
        self.execute(f"CREATE TABLE {self.ledger} (operation TEXT NOT NULL)")

    def drop(self) -> None:
        if self.kind is Dialect.POSTGRESQL:
            self.execute(f'DROP SCHEMA "{self.schema}" CASCADE')

    def execute(self, sql: str) -> list[Any]:
        """Execute a statement on a connection of one's own, and commit it."""
        if self.kind is Dialect.SQLITE:
            with closing(sqlite3.connect(self.address, timeout=20)) as database, database:
                return database.execute(sql).fetchall()
        with psycopg.connect(self.address, connect_timeout=20) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def effects(self, operation: str) -> int:
        """Count an operation's entries in the ledger."""
        sql = f"SELECT count(*) FROM {self.ledger} WHERE operation = '{operation}'"  # noqa: S608 - ours
        return int(self.execute(sql)[0][0])

    def records(self) -> int:
        """Count the records of keys."""
        return int(self.execute(f"SELECT count(*) FROM {self.keys}")[0][0])  # noqa: S608 - ours


def make_database(kind: Dialect, directory: Path, url: str | None) -> Database:
    """Make a database; on PostgreSQL, a schema of the one at `url`."""
    if kind is Dialect.SQLITE:
        made = Database(kind, str(directory / f"{secrets.token_hex(4)}.db"), None)
    else:
        assert url is not None
        made = Database(kind, url, f"test {secrets.token_hex(4)}")  # with a space: it is quoted
    made.create()
    return made


@dataclass(frozen=True)
class Place:
    """A store, and how its handlers work.

    Attributes:
        name: for the test's name.
        kind: the database's.
        open: makes the store, and what closes it; awaited for asyncio.
        execute: executes a statement, given what `current` returns; awaited for asyncio.
        aio: whether it is for asyncio.
        joins: whether a handler's own commit keeps the transaction.
    """

    name: str
    kind: Dialect
    open: Callable[[Database], Any]
    execute: Callable[[Any, str], Any]
    aio: bool = False
    joins: bool = False

    def __str__(self) -> str:
        return self.name


_POOL: dict[str, Any] = {"min_size": 1, "max_size": THREADS, "timeout": 5}

Opened = tuple[Any, "Callable[[], Any]"]


def _sqlite3(database: Database) -> Opened:
    store = SQLiteStore(database.address)
    return store, store.close


def _psycopg(database: Database) -> Opened:
    kind = psycopg_pool.ConnectionPool
    pool = kind(database.address, open=True, check=kind.check_connection, **_POOL)
    return PsycopgStore(pool, schema=database.schema), pool.close


def _engine(database: Database) -> sa.Engine:
    if database.kind is Dialect.SQLITE:
        return sa.create_engine(f"sqlite:///{database.address}", pool_size=THREADS)
    address = database.address.replace("postgresql://", "postgresql+psycopg://")
    return sa.create_engine(address, pool_size=THREADS, pool_pre_ping=True)


def _session(database: Database) -> Opened:
    engine = _engine(database)
    return SQLAlchemyStore(sessionmaker(engine), schema=database.schema), engine.dispose


def _connection(database: Database) -> Opened:
    engine = _engine(database)
    return SQLAlchemyStore(engine, schema=database.schema), engine.dispose


async def _aio_psycopg(database: Database) -> Opened:
    kind = psycopg_pool.AsyncConnectionPool
    pool = kind(database.address, open=False, check=kind.check_connection, **_POOL)
    await pool.open()
    return AioPsycopgStore(pool, schema=database.schema), pool.close


async def _asyncpg(database: Database) -> Opened:
    pool = await asyncpg.create_pool(database.address, min_size=1, max_size=THREADS, timeout=5)
    return AsyncpgStore(pool, schema=database.schema), pool.close


async def _aio_session(database: Database) -> Opened:
    if database.kind is Dialect.SQLITE:
        engine = create_async_engine(f"sqlite+aiosqlite:///{database.address}")
    else:
        address = database.address.replace("postgresql://", "postgresql+asyncpg://")
        engine = create_async_engine(address, pool_size=THREADS, pool_pre_ping=True)
    store = AioSQLAlchemyStore(async_sessionmaker(engine), schema=database.schema)
    return store, engine.dispose


def _by_driver(handle: Any, sql: str) -> Any:
    return handle.execute(sql)


def _by_sqlalchemy(handle: Any, sql: str) -> Any:
    return handle.execute(sa.text(sql))


_PG, _LITE = Dialect.POSTGRESQL, Dialect.SQLITE

PLACES = [
    Place("sqlite3", _LITE, _sqlite3, _by_driver, joins=True),
    Place("psycopg", _PG, _psycopg, _by_driver),
    Place("session on postgresql", _PG, _session, _by_sqlalchemy, joins=True),
    Place("connection on postgresql", _PG, _connection, _by_sqlalchemy),
    Place("session on sqlite", _LITE, _session, _by_sqlalchemy, joins=True),
    Place("aio psycopg", _PG, _aio_psycopg, _by_driver, aio=True),
    Place("asyncpg", _PG, _asyncpg, _by_driver, aio=True),
    Place("aio session on postgresql", _PG, _aio_session, _by_sqlalchemy, aio=True, joins=True),
    Place("aio session on sqlite", _LITE, _aio_session, _by_sqlalchemy, aio=True, joins=True),
]


async def finished(value: Awaitable[Any] | Any) -> Any:
    """Await what has to be awaited."""
    return await value if inspect.isawaitable(value) else value


ON_SQLITE = [place for place in PLACES if place.kind is Dialect.SQLITE]
SYNC_AND_AIO = [place for place in ON_SQLITE if place.name in ("sqlite3", "aio session on sqlite")]
