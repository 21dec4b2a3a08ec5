"""The SQL of the table: once, for all stores. Parameters are written ``:name``.

Two dialects differ in how a claim waits for another call with the key. SQLite has one writer, so
the wait is that for the database's lock, when the transaction begins. PostgreSQL waits for the
other call's row, within the claim.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from fusewire._validation import check_text, invalid
from fusewire.idempotency._records import (
    FORMAT,
    NEVER,
    Answer,
    Identity,
    Record,
    State,
    decode_trailers,
    encode_trailers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TABLE = "fusewire_idempotency"
"""The table's name, unless another is given."""

_LONGEST_NAME = 63
"""Bytes of a name that PostgreSQL keeps; it cuts a longer one without an error."""

Parameters = dict[str, Any]


class Dialect(StrEnum):
    """A database that the SQL is written for."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


_COLUMNS = (
    "format, state, claim, fingerprint, code, details, trailers, reply, created_at_ms,"
    " expires_at_ms, lease_until_ms"
)

# Keys are compared byte by byte. In another collation an upgrade of the operating system may
# reorder the index, and a key that is in it is then not found.
_DDL = {
    Dialect.POSTGRESQL: """\
CREATE TABLE {table} (
    scope TEXT COLLATE "C" NOT NULL,
    method TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    format INTEGER NOT NULL,
    state INTEGER NOT NULL,
    claim BYTEA NOT NULL,
    fingerprint BYTEA NOT NULL,
    code INTEGER,
    details BYTEA,
    trailers BYTEA,
    reply BYTEA,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    lease_until_ms BIGINT,
    PRIMARY KEY (scope, method, idempotency_key)
);
CREATE INDEX {index} ON {table} (expires_at_ms);
""",
    Dialect.SQLITE: """\
CREATE TABLE {table} (
    scope TEXT NOT NULL,
    method TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    format INTEGER NOT NULL,
    state INTEGER NOT NULL,
    claim BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    code INTEGER,
    details BLOB,
    trailers BLOB,
    reply BLOB,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    lease_until_ms BIGINT,
    PRIMARY KEY (scope, method, idempotency_key)
);
CREATE INDEX {index} ON {table} (expires_at_ms);
""",
}

_INSERT = """\
INSERT INTO {table} (
    scope, method, idempotency_key, format, state, claim, fingerprint, created_at_ms,
    expires_at_ms, lease_until_ms)
{values}
ON CONFLICT DO NOTHING RETURNING {returning}"""

_VALUES = f"""\
VALUES (
    :scope, :method, :key, {FORMAT}, {{state}}, :claim, :fingerprint, :now,
    {{expires_at}}, :lease_until)"""

# One statement, because each is a round trip of every call. The limit is set before the insert
# waits, since the insert reads its values from it, and set back after: RETURNING comes last. The
# handler's own statements then wait as its connection is configured to. CASE keeps the order.
_WAITING_VALUES = f"""\
SELECT
    CAST(:scope AS text), CAST(:method AS text), CAST(:key AS text), {FORMAT},
    {{state}}, CAST(:claim AS bytea), CAST(:fingerprint AS bytea),
    CAST(:now AS bigint), CAST({{expires_at}} AS bigint), CAST(:lease_until AS bigint)
WHERE CASE
    WHEN set_config('fusewire.lock_timeout', current_setting('lock_timeout'), true) IS NOT NULL
    THEN set_config('lock_timeout', :wait, true)
END IS NOT NULL"""
_NO_LONGER_WAITING = "set_config('lock_timeout', current_setting('fusewire.lock_timeout'), true)"

_WHERE = "WHERE scope = :scope AND method = :method AND idempotency_key = :key"
_MINE = f"{_WHERE} AND state = {int(State.CLAIMED)} AND claim = :claim"

_FINISH = f"""\
UPDATE {{table}} SET
    state = {int(State.ANSWERED)}, code = :code, details = :details, trailers = :trailers,
    reply = :reply, expires_at_ms = :expires_at, lease_until_ms = NULL
{_MINE} RETURNING state"""  # noqa: S608 - the table's name is quoted

_RENEW = f"""\
UPDATE {{table}} SET
    format = {FORMAT}, state = {int(State.CLAIMED)}, claim = :claim, fingerprint = :fingerprint,
    code = NULL, details = NULL, trailers = NULL, reply = NULL, created_at_ms = :now,
    expires_at_ms = {NEVER}, lease_until_ms = :lease_until
{_WHERE} AND expires_at_ms <= :now RETURNING {{returning}}"""  # noqa: S608 - see _FINISH

_SWEEP = """\
DELETE FROM {table} WHERE (scope, method, idempotency_key) IN (
    SELECT scope, method, idempotency_key FROM {table} WHERE expires_at_ms <= :now
    ORDER BY expires_at_ms LIMIT :limit{skip})
RETURNING state"""


class Sql:
    """The statements for one table.

    Args:
        dialect: the database.
        table: the table's name.
        schema: the schema it is in; None for the connection's own.

    Attributes:
        name: the table's whole name, quoted.
        ddl: what creates the table and its index.
        check: fails if the table, or one of its columns, is not there.
        claim: take a key that has no record. Returns a row if it had none.
        renew: take a key whose record has expired. Returns a row if it had.
        cancel: take a key that has no record, for good. Returns a row if it had none.
        find: return the record of a key.
        finish: store the answer of one's own claim. Returns a row if it was there.
        doubt: say that the end of one's own claim is not known.
        take_over: claim what another call has begun. Returns a row if it is still as it was.
        forget: delete the record of a key, except one that is begun. Returns a row if there was
            one.
        sweep: delete expired records. Returns a row for each.
    """

    def __init__(self, dialect: Dialect, table: str = TABLE, schema: str | None = None) -> None:
        name = check_name("table", table)
        self.dialect = dialect
        self.name = _quoted(name)
        if schema is not None:
            self.name = f"{_quoted(check_name('schema', schema))}.{self.name}"
        waits = dialect is Dialect.POSTGRESQL
        self.ddl = _DDL[dialect].format(table=self.name, index=_quoted(index_name(name)))
        self.check = f"SELECT {_COLUMNS} FROM {self.name} {_WHERE} AND 1 = 0"  # noqa: S608 - see _FINISH
        returning = _NO_LONGER_WAITING if waits else "state"
        values = _WAITING_VALUES if waits else _VALUES
        claimed = values.format(state=int(State.CLAIMED), expires_at=NEVER)
        cancelled = values.format(state=int(State.CANCELLED), expires_at=":expires_at")
        self.claim = _INSERT.format(table=self.name, values=claimed, returning=returning)
        self.cancel = _INSERT.format(table=self.name, values=cancelled, returning=returning)
        self.renew = _RENEW.format(table=self.name, returning=returning)
        self.find = f"SELECT {_COLUMNS} FROM {self.name} {_WHERE}"  # noqa: S608 - see _FINISH
        self.finish = _FINISH.format(table=self.name)
        self.doubt = f"UPDATE {self.name} SET lease_until_ms = 0 {_MINE} RETURNING state"  # noqa: S608 - see _FINISH
        self.take_over = (
            f"UPDATE {self.name} SET claim = :new_claim, lease_until_ms = :lease_until"  # noqa: S608 - see _FINISH
            f" {_MINE} RETURNING state"
        )
        self.free = f"DELETE FROM {self.name} {_MINE} RETURNING state"  # noqa: S608 - see _FINISH
        self.forget = (
            f"DELETE FROM {self.name} {_WHERE}"  # noqa: S608 - see _FINISH
            f" AND state <> {int(State.CLAIMED)} RETURNING state"
        )
        self.sweep = _SWEEP.format(table=self.name, skip=" FOR UPDATE SKIP LOCKED" if waits else "")


def index_name(table: str) -> str:
    """Return the name of the index for sweeping."""
    return f"ix_{table}_expires_at_ms"


def check_name(setting: str, name: object) -> str:
    """Return `name` if a table or a schema can have it, and the index for it.

    Raises:
        SettingsError: it cannot.
    """
    text = check_text(setting, name)
    longest = _LONGEST_NAME - len(index_name(""))
    if "\0" in text or len(text.encode()) > longest:
        raise invalid(setting, f"a name of at most {longest} bytes", name)
    return text


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")


def with_parameters(sql: str, style: Callable[[str], str]) -> str:
    """Return a statement with its parameters written in another style."""
    return _PARAMETER.sub(lambda found: style(found[1]), sql)


def identity_parameters(identity: Identity) -> Parameters:
    """Return the parameters that name a record."""
    return {"scope": identity.scope, "method": identity.method, "key": identity.key}


def answer_parameters(answer: Answer) -> Parameters:
    """Return the parameters that hold an answer."""
    return {
        "code": answer.code,
        "details": answer.details,
        "trailers": encode_trailers(answer.trailers),
        "reply": answer.reply,
    }


def read_record(row: Sequence[Any]) -> Record:
    """Read a row of `Sql.find`."""
    number, state, claim, fingerprint, code, details, trailers, reply, created, expires, lease = row
    answer = None
    if state == State.ANSWERED and number <= FORMAT:
        answer = Answer(
            code,
            bytes(details or b""),
            decode_trailers(bytes(trailers or b"")),
            None if reply is None else bytes(reply),
        )
    return Record(number, state, bytes(claim), bytes(fingerprint), answer, created, expires, lease)


def numbered(sql: str) -> tuple[str, list[str]]:
    """Return a statement with parameters ``$1``, ``$2``, and their names in this order."""
    names: list[str] = []

    def number(name: str) -> str:
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return with_parameters(sql, number), names
