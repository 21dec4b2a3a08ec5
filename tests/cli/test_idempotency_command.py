"""``fusewire idempotency sweep``: what it deletes, what it prints, and how it ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from fusewire.cli._app import app
from fusewire.idempotency._sql import TABLE, Dialect, Sql
from tests.support.idempotent_places import Database, make_database
from tests.support.ports import reserve_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

    from tests.support.postgres import Postgres

HIDDEN = "s3cret"


def run(*options: str, address: str | None = None) -> Result:
    return CliRunner().invoke(
        app, ["idempotency", "sweep", *options], env={"FUSEWIRE_STORE": address}
    )


def fill(database: Database, *, expired: int, alive: int, keys: str | None = None) -> None:
    """Put records into the table of the keys."""
    values = [
        f"('', '/a/B', '{number}', 1, 1, {blob(database)}, {blob(database)}, 0,"
        f" {1 if number < expired else 2**62})"
        for number in range(expired + alive)
    ]
    database.execute(
        f"INSERT INTO {keys or database.keys} (scope, method, idempotency_key, format, state,"  # noqa: S608 - ours
        f" claim, fingerprint, created_at_ms, expires_at_ms) VALUES {', '.join(values)}"
    )


def blob(database: Database) -> str:
    return "X'00'" if database.kind is Dialect.SQLITE else "'\\x00'"


@pytest.fixture
def file(tmp_path: Path) -> Database:
    return make_database(Dialect.SQLITE, tmp_path, None)


@pytest.fixture
def schema(tmp_path: Path, postgres: Postgres) -> Iterator[Database]:
    made = make_database(Dialect.POSTGRESQL, tmp_path, postgres.url)
    yield made
    made.drop()


def test_expired_records_of_a_file_are_deleted_and_no_others(file: Database) -> None:
    fill(file, expired=1000, alive=3)  # two full batches
    done = run(f"sqlite:///{file.address}")
    assert done.exit_code == 0, done.output
    assert done.stdout == "1000 expired records deleted\n"
    assert file.records() == 3
    again = run(address=f"sqlite+aiosqlite:///{file.address}")
    assert (again.exit_code, again.stdout) == (0, "0 expired records deleted\n")


def test_expired_records_of_a_schema_are_deleted_and_no_others(schema: Database) -> None:
    fill(schema, expired=501, alive=3)
    assert schema.schema is not None
    done = run(schema.address, "--schema", schema.schema)
    assert done.exit_code == 0, done.output
    assert done.stdout == "501 expired records deleted\n"
    assert schema.records() == 3


def test_a_table_of_another_name_is_swept(file: Database) -> None:
    file.execute(f"ALTER TABLE {TABLE} RENAME TO keys_of_ours")
    fill(file, expired=2, alive=1, keys="keys_of_ours")
    done = run(f"sqlite:///{file.address}", "--table", "keys_of_ours")
    assert (done.exit_code, done.stdout) == (0, "2 expired records deleted\n")


def test_a_missing_table_ends_it_with_2_and_the_statement_that_makes_it(
    file: Database, schema: Database
) -> None:
    for database, address in ((file, f"sqlite:///{file.address}"), (schema, schema.address)):
        done = run(address, "--table", "other")
        assert done.exit_code == 2
        assert Sql(database.kind, "other").ddl.splitlines()[0] in done.stderr


def test_a_missing_file_ends_it_with_2_and_is_not_made(tmp_path: Path) -> None:
    done = run(f"sqlite:///{tmp_path}/none.db")
    assert done.exit_code == 2
    assert "there is no file" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (f"postgresql://bob:{HIDDEN}@127.0.0.1:PORT/shop", "connection"),
        (f"postgresql://bob:{HIDDEN}/x@127.0.0.1/shop", "libpq cannot read it"),
        (f"postgresql://bob:{HIDDEN}%zz@127.0.0.1/shop", "libpq cannot read it"),
        (f"postgresql://bob:x@{HIDDEN}@127.0.0.1/shop", "libpq cannot read it"),
        (f"postgresql://bob:1/{HIDDEN}@127.0.0.1/shop", "libpq cannot read it"),
        (f"mysql://bob:{HIDDEN}@127.0.0.1/shop", "the store's address must be"),
        (f"bob:{HIDDEN}", "the store's address must be"),
        (f"sqlite://bob:{HIDDEN}@127.0.0.1/shop", "the store's address must be"),
    ],
)
def test_an_address_that_cannot_be_used_ends_it_with_2_and_no_password_is_printed(
    address: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = run(address.replace("PORT", str(reserve_port())))
    assert done.exit_code == 2
    assert why in done.stderr
    assert HIDDEN not in done.output + caplog.text


def test_options_that_cannot_be_right_end_it_with_2(file: Database) -> None:
    for option, why in (("--schema", "--schema is for PostgreSQL"), ("--table", "table must be")):
        done = run(f"sqlite:///{file.address}", option, "")
        assert done.exit_code == 2
        assert why in done.stderr
    assert run().exit_code == 2


def test_without_psycopg_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: Any = None
    monkeypatch.setitem(sys.modules, "psycopg_pool", gone)
    done = run("postgresql://127.0.0.1/shop")
    assert done.exit_code == 2
    assert "pip install 'fusewire[psycopg]'" in done.stderr
