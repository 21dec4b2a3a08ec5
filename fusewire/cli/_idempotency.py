"""``fusewire idempotency``: deletes expired records where no server does it beside its calls."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from fusewire.cli._exit import fail
from fusewire.cli._output import echo
from fusewire.errors import FusewireError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from fusewire.idempotency import SQLiteStore
    from fusewire.idempotency.psycopg import PsycopgStore

_BATCH = 500
"""Records that one transaction deletes: it holds their locks, and on SQLite all others' too."""

_NEEDED = {"psycopg", "psycopg_pool"}
_ACCEPTED = "postgresql://USER@HOST/DATABASE, sqlite:///relative/file.db or sqlite:////absolute.db"

idempotency = typer.Typer(
    name="idempotency", help="The table of a server's idempotency keys.", no_args_is_help=True
)


@idempotency.command()
def sweep(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            envvar="FUSEWIRE_STORE",
            help="The database: postgresql://… as libpq reads it, or sqlite:///FILE.",
            show_default=False,
        ),
    ],
    *,
    table: Annotated[str, typer.Option(metavar="NAME", help="The table.")] = "fusewire_idempotency",
    schema: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The schema that it is in, on PostgreSQL."),
    ] = None,
) -> None:
    """Delete the records of idempotency keys that have expired.

    For servers and consumers with sweep=None: run it from time to time, once an hour for example.
    It deletes 500 records in a transaction, so calls go on beside it, several may run at the same
    time, and one that is killed has deleted a part. The exit status is 0 if it has deleted all, and
    2 if it could not run, or the database failed meanwhile.
    """
    try:
        progress = Console(stderr=True).status("connecting")
        with progress as status, _opened(address, table, schema) as store:
            store.check_table()
            deleted = batch = store.sweep(limit=_BATCH)
            while batch == _BATCH:
                status.update(f"{deleted} expired records deleted")
                batch = store.sweep(limit=_BATCH)
                deleted += batch
    except FusewireError as error:
        _fail(str(error))
    echo(Console(), f"{deleted} expired records deleted")


@contextmanager
def _opened(address: str, table: str, schema: str | None) -> Iterator[SQLiteStore | PsycopgStore]:
    """Open the store that an address means; errors of its driver end the command.

    Raises:
        SettingsError: it means none, or a name cannot be one.
    """
    scheme, separator, rest = address.partition("://")
    opened: AbstractContextManager[SQLiteStore | PsycopgStore]
    # SQLAlchemy's addresses name a driver behind the scheme.
    match scheme.partition("+")[0] if separator else "":
        case "postgresql" | "postgres":
            opened = _postgresql(f"postgresql://{rest}", table, schema)
        case "sqlite":
            if schema is not None:
                raise SettingsError("--schema is for PostgreSQL: a file of SQLite has none")
            opened = _sqlite(rest, table)
        case _:
            # Not what it is: it may hold a password.
            raise SettingsError(f"the store's address must be {_ACCEPTED}")
    with opened as store:
        yield store


@contextmanager
def _sqlite(rest: str, table: str) -> Iterator[SQLiteStore]:
    from fusewire.idempotency import SQLiteStore  # noqa: PLC0415 - gRPC loads slowly

    if not rest.startswith("/"):
        raise SettingsError(f"the store's address must be {_ACCEPTED}")
    path = Path(rest.removeprefix("/"))
    if not path.is_file():  # SQLite would make an empty one
        raise SettingsError(f"there is no file {str(path)!r}")
    try:
        with SQLiteStore(path, table=table) as store:
            yield store
    except sqlite3.Error as error:
        _fail(str(error))


@contextmanager
def _postgresql(address: str, table: str, schema: str | None) -> Iterator[PsycopgStore]:
    try:
        import psycopg  # noqa: PLC0415 - an extra
        from psycopg_pool import ConnectionPool  # noqa: PLC0415 - see above

        from fusewire.idempotency.psycopg import PsycopgStore  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        _fail(f"it needs {missing}, which is not installed: pip install 'fusewire[psycopg]'")
    if not _is_readable(address):
        raise SettingsError(
            f"the store's address must be {_ACCEPTED}: libpq cannot read it. In a user or password "
            "write what is no letter and no digit as % and two hexadecimal digits"
        )
    try:
        # The pool says only that it got no connection, and not why.
        psycopg.connect(address).close()
        with ConnectionPool(address, min_size=1, max_size=1, open=False) as pool:
            yield PsycopgStore(pool, table=table, schema=schema)
    except psycopg.Error as error:
        _fail(str(error))


def _is_readable(address: str) -> bool:
    """Return whether libpq reads an address as it is meant.

    What libpq says of another one is not printed: it quotes the part that it cannot read.
    """
    from psycopg import ProgrammingError  # noqa: PLC0415 - an extra
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - see above

    try:
        parts = conninfo_to_dict(address)
    except ProgrammingError:
        return False
    host, port, database = (str(parts.get(name) or "") for name in ("host", "port", "dbname"))
    # A "/" or "@" in a password ends it, and the rest of it is taken for something else.
    return "@" not in host + database and not port.strip("0123456789,")


def _fail(why: str) -> NoReturn:
    fail("idempotency sweep", why)
