"""The table is the user's own: its name, its schema, and who makes it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import sessionmaker

from fusewire.errors import SettingsError
from fusewire.idempotency import MissingTableError, SQLiteStore, idempotent
from fusewire.idempotency._sql import TABLE, Dialect
from fusewire.idempotency.sqlalchemy import SQLAlchemyStore, table
from tests.support.idempotent_client import CHARGE
from tests.support.idempotent_places import Database, make_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres


@pytest.fixture(params=Dialect)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Provide a database of each kind."""
    url = None
    if request.param is Dialect.POSTGRESQL:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.url
    made = make_database(request.param, tmp_path, url)
    yield made
    made.drop()


@pytest.fixture
def engine(database: Database) -> Iterator[sa.Engine]:
    """Provide an engine of the database."""
    address = (
        f"sqlite:///{database.address}"
        if database.kind is Dialect.SQLITE
        else database.address.replace("postgresql://", "postgresql+psycopg://")
    )
    made = sa.create_engine(address)
    yield made
    made.dispose()


def test_the_described_table_is_the_one_that_the_ddl_makes(
    database: Database, engine: sa.Engine
) -> None:
    ours = _described(engine, TABLE, database.schema)
    metadata = sa.MetaData()
    made = table(metadata, name="by_sqlalchemy", schema=database.schema)
    metadata.create_all(engine)
    assert _described(engine, made.name, database.schema) == ours


def _described(engine: sa.Engine, name: str, schema: str | None) -> Any:
    looking = sa.inspect(engine)
    columns = [
        (each["name"], str(each["type"]), each["nullable"])
        for each in looking.get_columns(name, schema)
    ]
    assert columns
    indexes = [each["column_names"] for each in looking.get_indexes(name, schema)]
    return columns, looking.get_pk_constraint(name, schema)["constrained_columns"], indexes


def test_nothing_is_created_by_a_store(database: Database, engine: sa.Engine) -> None:
    before = sa.inspect(engine).get_table_names(database.schema)
    store = SQLAlchemyStore(sessionmaker(engine), table="other", schema=database.schema)
    with pytest.raises(MissingTableError, match="other"):
        idempotent(store, [CHARGE])
    assert sa.inspect(engine).get_table_names(database.schema) == before


def test_a_table_without_a_column_is_missing(database: Database, engine: sa.Engine) -> None:
    database.execute(f"ALTER TABLE {database.keys} DROP COLUMN fingerprint")
    with pytest.raises(MissingTableError, match="fingerprint"):
        idempotent(SQLAlchemyStore(engine, schema=database.schema), [CHARGE])


def test_a_name_may_need_quotes(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    with SQLiteStore(path, table='the "keys" of all') as store:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(store.ddl)
        idempotent(store, [CHARGE])
        assert store.find(CHARGE, "k") is None


def test_a_sessionmaker_with_several_databases_is_refused(engine: sa.Engine) -> None:
    class Model:
        pass

    with pytest.raises(SettingsError, match="one bind and no binds"):
        SQLAlchemyStore(sessionmaker(engine, binds={Model: engine}))
