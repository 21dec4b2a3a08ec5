"""The stores behind a PgBouncer in transaction mode: each transaction has another connection.

What a driver prepares is then on a connection that others use. psycopg's stores see that and stop.
The other drivers have to be told, as docs/exactly-once.md says.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from fusewire.idempotency.asyncpg import AsyncpgStore
from fusewire.idempotency.sqlalchemy import AioSQLAlchemyStore, SQLAlchemyStore
from tests.support.idempotent_client import seen
from tests.support.idempotent_places import PLACES, THREADS, Database, Place
from tests.support.idempotent_server import Server
from tests.support.pgbouncer import NoPgBouncerError, PgBouncer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.idempotent_server import Loop
    from tests.support.postgres import Postgres

pytestmark = pytest.mark.long

KEYS = 150


def _session(database: Database) -> Any:
    engine = sa.create_engine(
        database.address.replace("postgresql://", "postgresql+psycopg://"),
        connect_args={"prepare_threshold": None},
        pool_size=THREADS,
    )
    return SQLAlchemyStore(sessionmaker(engine), schema=database.schema), engine.dispose


async def _asyncpg(database: Database) -> Any:
    pool = await asyncpg.create_pool(
        database.address, statement_cache_size=0, min_size=1, max_size=THREADS
    )
    return AsyncpgStore(pool, schema=database.schema), pool.close


async def _aio_session(database: Database) -> Any:
    engine = create_async_engine(
        database.address.replace("postgresql://", "postgresql+asyncpg://"),
        connect_args={"statement_cache_size": 0, "prepared_statement_cache_size": 0},
        pool_size=THREADS,
    )
    store = AioSQLAlchemyStore(async_sessionmaker(engine), schema=database.schema)
    return store, engine.dispose


def _told(name: str, opened: Any) -> Place:
    (place,) = (place for place in PLACES if place.name == name)
    return replace(place, open=opened)


# psycopg's as they are.
BEHIND = [place for place in PLACES if place.name in ("psycopg", "aio psycopg")] + [
    _told("session on postgresql", _session),
    _told("asyncpg", _asyncpg),
    _told("aio session on postgresql", _aio_session),
]


@pytest.fixture
def pooled(postgres: Postgres) -> Iterator[PgBouncer]:
    """Provide a PgBouncer before the tests' PostgreSQL."""
    with contextlib.ExitStack() as stack:
        try:
            pooler = stack.enter_context(PgBouncer(postgres.url))
        except NoPgBouncerError as error:
            pytest.skip(str(error))
        yield pooler


@pytest.mark.parametrize("place", BEHIND, ids=str)
def test_each_key_is_made_once_behind_a_pooler(
    pooled: PgBouncer, place: Place, database: Database, loop: Loop
) -> None:
    with Server(place, replace(database, address=pooled.url), loop, wait=15) as server:

        def twice(key: str) -> tuple[set[str], set[bytes]]:
            answers = [seen(call) for call in [server.start("ok", key) for _ in range(2)]]
            return {each.code for each in answers}, {each.reply for each in answers}

        keys = [f"k{number}" for number in range(KEYS)]
        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(twice, keys))
    assert all(codes == {"OK"} and len(replies) == 1 for codes, replies in answers)
    rows = database.execute(f"SELECT operation FROM {database.ledger}")  # noqa: S608 - ours
    assert Counter(operation for (operation,) in rows) == Counter(keys)
    # A limit of a claim is that of its transaction: the next one of the connection has its own.
    with psycopg.connect(pooled.url, prepare_threshold=None) as connection:
        assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)
