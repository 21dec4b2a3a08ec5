"""A setting that cannot be right is refused when the interceptor is made, with what is accepted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import psycopg_pool
import pytest
import sqlalchemy as sa

from fusewire.errors import SettingsError
from fusewire.idempotency import SQLiteStore, aio_idempotent, idempotent
from fusewire.idempotency._sql import Dialect
from fusewire.idempotency.asyncpg import AsyncpgStore
from fusewire.idempotency.psycopg import PsycopgStore
from fusewire.idempotency.sqlalchemy import AioSQLAlchemyStore, SQLAlchemyStore
from tests.support.idempotent_client import CHARGE
from tests.support.idempotent_places import make_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    database = make_database(Dialect.SQLITE, tmp_path, None)
    with SQLiteStore(database.address) as made:
        yield made


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 60}, "keep must be a finite number of seconds of at least 3600, an hour, got 60"),
        ({"keep": timedelta(days=7)}, "write 604800.0, its total_seconds()"),
        ({"wait": 0}, "wait must be a finite number of seconds above 0, got 0"),
        ({"lease": -1}, "lease must be"),
        ({"effects": "else"}, "effects must be 'transaction' or 'elsewhere', got 'else'"),
        ({"effects": "elsewhere", "on_doubt": "run"}, "on_doubt must be 'refuse' or 'rerun'"),
        ({"on_doubt": "rerun"}, "on_doubt must be left out where effects is 'transaction'"),
        ({"effects": "elsewhere", "on_doubt": lambda key: None}, "on_doubt must be a function"),
        ({"required": 1}, "required must be True or False"),
        ({"scope": "tenant"}, "scope must be a function"),
        ({"final": [grpc.StatusCode.OK]}, "each of final must be a grpc.StatusCode other than OK"),
        ({"final": [5]}, "each of final must be"),
        ({"max_reply": 0}, "max_reply must be"),
        ({"sweep": 0}, "sweep must be a finite number of seconds above 0, or None"),
    ],
)
def test_a_wrong_setting_is_refused(
    store: SQLiteStore, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        idempotent(store, [CHARGE], **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (CHARGE, "methods must be a list of methods"),
        ([], "methods must be at least one method"),
        (["Charge"], "each method must be '/pkg.Service/Method' or '/pkg.Service/*', got 'Charge'"),
        (["*"], "each method must be"),
        ([3], "each method must be"),
        ([CHARGE, CHARGE], "twice: its key is claimed once"),
    ],
)
def test_wrong_methods_are_refused(store: SQLiteStore, methods: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        idempotent(store, methods)
    assert message in str(caught.value)


async def test_a_store_of_the_other_kind_is_refused(store: SQLiteStore) -> None:
    with pytest.raises(SettingsError, match="store must be an AioStore"):
        await aio_idempotent(store, [CHARGE])  # type: ignore[arg-type] # what is tested
    with pytest.raises(SettingsError, match="store must be a SyncStore"):
        idempotent("sqlite:///keys.db", [CHARGE])  # type: ignore[arg-type] # what is tested


@pytest.mark.parametrize("name", ["", "a" * 60, "a\0b", 3, "half \udc80"])
def test_a_name_that_no_table_can_have_is_refused(name: Any) -> None:
    with pytest.raises(SettingsError, match="table must be"):
        SQLiteStore("keys.db", table=name)


def test_what_is_no_pool_or_engine_is_refused() -> None:
    wrong: Any = object()
    for make, accepted in (
        (PsycopgStore, "pool must be a ConnectionPool"),
        (AsyncpgStore, "pool must be a Pool"),
        (SQLAlchemyStore, "source must be a sessionmaker that is bound to an Engine, or one"),
        (AioSQLAlchemyStore, "source must be an async_sessionmaker"),
    ):
        with pytest.raises(SettingsError, match=accepted):
            make(wrong)


def test_a_pool_that_cannot_serve_the_threads_is_refused(tmp_path: Path) -> None:
    database = make_database(Dialect.SQLITE, tmp_path, None)
    engine = sa.create_engine(
        f"sqlite:///{database.address}", poolclass=sa.QueuePool, pool_size=4, max_overflow=2
    )
    store = SQLAlchemyStore(engine)
    idempotent(store, [CHARGE], threads=6)
    with pytest.raises(SettingsError, match=r"at most the 6 connections .*, got 7"):
        idempotent(store, [CHARGE], threads=7)
    with pytest.raises(SettingsError, match="threads must be a whole number"):
        idempotent(store, [CHARGE], threads=0)
    engine.dispose()


def test_a_pool_without_a_limit_serves_any_number_of_threads(
    tmp_path: Path, store: SQLiteStore
) -> None:
    database = make_database(Dialect.SQLITE, tmp_path, None)
    idempotent(store, [CHARGE], threads=1000)
    for settings in ({"poolclass": sa.NullPool}, {"poolclass": sa.QueuePool, "max_overflow": -1}):
        engine = sa.create_engine(f"sqlite:///{database.address}", **settings)
        idempotent(SQLAlchemyStore(engine), [CHARGE], threads=1000)
        engine.dispose()


def test_psycopgs_pool_is_compared_with_the_threads(postgres: Postgres) -> None:
    with psycopg_pool.ConnectionPool(postgres.url, min_size=0, max_size=3, open=False) as pool:
        store = PsycopgStore(pool)
        with pytest.raises(SettingsError, match="at most the 3 connections"):
            idempotent(store, [CHARGE], threads=4)
