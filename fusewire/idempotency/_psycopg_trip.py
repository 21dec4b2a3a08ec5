"""Several statements in one round trip of psycopg 3: by libpq's pipeline mode, and prepared.

A call has five statements besides its handler's: it begins, claims, sets a savepoint, finishes and
commits.
As round trips of their own they would cost more than most handlers' work, and parsing them each
time as much again. psycopg's own pipelines and cursors cost more time of this process than they
save, so libpq is asked directly.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg.errors import DuplicatePreparedStatement, InvalidSqlStatementName
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.waiting import Ready, Wait

from fusewire.idempotency._sql import numbered

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from fusewire.idempotency._sql import Parameters
    from fusewire.idempotency._store import Rows

    Connection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]
    Talk = Generator[Wait, Ready | int, list[PGresult]]
    _Talk = Generator[Wait, Ready | int, list[tuple[bytes | None, PGresult]]]

# The numbers of types in PostgreSQL's catalog.
_BYTEA, _BIGINT, _TEXT = 17, 20, 25
_INTEGERS = frozenset({_BIGINT, 21, 23})

# Those of the parameters that are not text.
_TYPES = {
    **dict.fromkeys(["claim", "new_claim", "fingerprint", "details", "trailers", "reply"], _BYTEA),
    **dict.fromkeys(["code", "expires_at", "lease_until", "limit", "now"], _BIGINT),
}

_GOOD = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)

NOT_PREPARED = (InvalidSqlStatementName, DuplicatePreparedStatement)
"""Errors that say nothing of a statement, only of its name."""


class Statement(NamedTuple):
    """A statement with its values, as libpq takes them.

    Attributes:
        sql: its text, with ``$1``.
        name: what it is prepared as; None if it is not.
        values: one for each parameter.
        types: their types' numbers.
        formats: whether they are text or binary.
    """

    sql: bytes
    name: bytes | None = None
    # Lists: psycopg 3.2's own C code takes no tuples.
    values: list[bytes | None] | None = None
    types: list[int] | None = None
    formats: list[Format] | None = None


COMMIT = Statement(b"COMMIT", b"fusewire_commit")
ROLLBACK = Statement(b"ROLLBACK")
SAVEPOINT = Statement(b"SAVEPOINT fusewire_finish")  # has no name: it is there if names are gone
ROLLBACK_TO = Statement(b"ROLLBACK TO fusewire_finish")
_BEGIN = Statement(b"BEGIN", b"fusewire_begin")


def begin(connection: Connection) -> Statement:
    """Return the statement that begins a transaction as the connection is configured to."""
    level, read_only = connection.isolation_level, connection.read_only
    deferrable = connection.deferrable
    if level is None and read_only is None and deferrable is None:
        return _BEGIN
    words = ["BEGIN"]
    if level is not None:
        words.append(f"ISOLATION LEVEL {psycopg.IsolationLevel(level).name.replace('_', ' ')}")
    if read_only is not None:
        words.append("READ ONLY" if read_only else "READ WRITE")
    if deferrable is not None:
        words.append("DEFERRABLE" if deferrable else "NOT DEFERRABLE")
    return Statement(" ".join(words).encode())


class _Text(NamedTuple):
    """What is the same each time that a statement is executed."""

    sql: bytes
    name: bytes
    parameters: Sequence[str]
    types: list[int]
    formats: list[Format]


@functools.lru_cache(maxsize=64)
def _text(sql: str) -> _Text:
    text, parameters = numbered(sql)
    data = text.encode()
    name = f"fusewire_{hashlib.sha256(data).hexdigest()[:16]}"
    types = [_TYPES.get(parameter, _TEXT) for parameter in parameters]
    # Bytes are sent as they are: as text a reply would be twice as long.
    formats = [Format.BINARY if kind == _BYTEA else Format.TEXT for kind in types]
    return _Text(data, name.encode(), parameters, types, formats)


def statement(sql: str, parameters: Parameters, encoding: str) -> Statement:
    """Return a statement of :class:`~fusewire.idempotency._sql.Sql` with its values."""
    text, name, names, types, formats = _text(sql)
    values = [
        value if value is None or isinstance(value, bytes) else _encoded(value, encoding)
        for value in map(parameters.__getitem__, names)
    ]
    return Statement(text, name, values, types, formats)


def _encoded(value: Any, encoding: str) -> bytes:
    return b"%d" % value if isinstance(value, int) else str(value).encode(encoding)


class Preparations:
    """What is prepared on the connections of a pool.

    psycopg forgets all prepared statements of a connection when one of its own transactions is
    rolled back. A pooler in transaction mode gives each transaction another connection of the
    server. So a name may be gone, or there already, and then the statement is not prepared.
    """

    def __init__(self) -> None:
        self._names: WeakKeyDictionary[Connection, set[bytes]] = WeakKeyDictionary()
        self._shared = False

    def names(self, connection: Connection) -> set[bytes] | None:
        """Return the names on a connection; None if nothing is to be prepared there."""
        if self._shared or connection.prepare_threshold is None:  # psycopg's own switch
            return None
        return self._names.setdefault(connection, set())

    def forget(self, connection: Connection, error: Exception) -> None:
        """Take note of one of :data:`NOT_PREPARED`."""
        self._names.pop(connection, None)
        if isinstance(error, DuplicatePreparedStatement):
            self._shared = True


def trip(
    pgconn: PGconn, statements: Sequence[Statement], names: set[bytes] | None, encoding: str
) -> Talk:
    """Execute statements in one round trip, and return their results. Psycopg's `wait` drives it.

    If one fails, those behind it are not executed.

    Args:
        pgconn: libpq's connection, on which nothing else is going on.
        statements: what is executed.
        names: what is prepared on it; None if nothing is to be prepared.
        encoding: of the server's messages.

    Raises:
        psycopg.Error: one failed, or the connection was lost.
    """
    sent = _sent(pgconn, statements, names)
    if psycopg.Pipeline.is_supported():
        messages = _together(pgconn, sent)
    else:  # libpq before 14
        messages = _one_by_one(pgconn, sent)
    results: list[PGresult] = []
    for name, result in (yield from messages):
        if result.status not in _GOOD:
            raise psycopg.errors.error_from_result(result, encoding)
        if name is None:
            results.append(result)
        elif names is not None:
            # It stays when its transaction fails.
            names.add(name)
    return results


def _sent(
    pgconn: PGconn, statements: Sequence[Statement], names: set[bytes] | None
) -> Iterator[bytes | None]:
    """Send a message each time, and yield what it prepares; None if it executes a statement."""
    for sql, name, values, types, formats in statements:
        if name is None or names is None:
            pgconn.send_query_params(sql, values, types, formats, Format.BINARY)
        else:
            if name not in names:
                pgconn.send_prepare(name, sql, types)
                yield name
            pgconn.send_query_prepared(name, values, formats, Format.BINARY)
        yield None


def _together(pgconn: PGconn, sent: Iterator[bytes | None]) -> _Talk:
    pgconn.enter_pipeline_mode()
    messages = list(sent)
    pgconn.pipeline_sync()
    yield from _flush(pgconn)
    results = yield from _until_synced(pgconn)
    if pgconn.status == ConnStatus.OK:
        pgconn.exit_pipeline_mode()
    return list(zip(messages, results, strict=False))  # shorter if the connection was lost


def _one_by_one(pgconn: PGconn, sent: Iterator[bytes | None]) -> _Talk:
    results: list[tuple[bytes | None, PGresult]] = []
    for message in sent:
        yield from _flush(pgconn)
        yield from _received(pgconn)
        while (result := _next(pgconn)) is not None:
            results.append((message, result))
            yield from _received(pgconn)
        if results[-1][1].status not in _GOOD:
            break
    return results


def _flush(pgconn: PGconn) -> Generator[Wait, Ready | int, None]:
    while pgconn.flush():
        ready: Ready | int = Ready.NONE
        while not ready:
            ready = yield Wait.RW
        if ready & Ready.R:  # the server may wait for us to read, before it reads
            pgconn.consume_input()


def _until_synced(pgconn: PGconn) -> Generator[Wait, Ready | int, list[PGresult]]:
    results: list[PGresult] = []
    while True:
        try:
            if pgconn.is_busy():
                yield from _received(pgconn)
            result = _next(pgconn)
        except psycopg.OperationalError:
            # What the server said before it hung up says more.
            if any(each.status == ExecStatus.FATAL_ERROR for each in results):
                return results
            raise
        if result is None:  # the results of the next statement follow
            continue
        if result.status == ExecStatus.PIPELINE_SYNC:
            return results
        results.append(result)


def _received(pgconn: PGconn) -> Generator[Wait, Ready | int, None]:
    """Wait until the next result is here."""
    while pgconn.is_busy():
        while not (yield Wait.R):
            pass
        pgconn.consume_input()


def _next(pgconn: PGconn) -> PGresult | None:
    result = pgconn.get_result()
    if result is None and pgconn.status != ConnStatus.OK:
        raise psycopg.OperationalError("the connection is lost")
    return result


def rows_of(result: PGresult) -> Rows:
    """Return the rows of a result: bytes, integers and texts."""
    columns = range(result.nfields)
    types = [result.ftype(column) for column in columns]
    return [
        [_value(result.get_value(row, column), types[column]) for column in columns]
        for row in range(result.ntuples)
    ]


def _value(value: bytes | None, kind: int) -> Any:
    if value is None or kind == _BYTEA:
        return value
    if kind in _INTEGERS:
        return int.from_bytes(value, "big", signed=True)
    return value.decode()
