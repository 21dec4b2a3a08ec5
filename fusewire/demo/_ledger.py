"""The payments server's ledger, in the database that remembers the idempotency keys too.

:meth:`Ledger.charge` and :meth:`Ledger.refund` write in the transaction of the call that they are
made for. That a key has one effect is the work of :mod:`fusewire.idempotency`, and the ledger has
no part in it: no constraint keeps an operation id from standing in the table of entries twice, so a
fault would show in the records.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from fusewire.demo.payments.v1.payments_pb2 import (
    ENTRY_KIND_CHARGE,
    ENTRY_KIND_REFUND,
    STATUS_CHARGED,
    STATUS_REFUNDED,
    ChargeReply,
    ChargeRequest,
    RefundReply,
    RefundRequest,
    StatementEntry,
)
from fusewire.idempotency import SQLiteStore

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

MOST_CENTS = 10**12
"""The largest charge: sums of a few million of them stay within SQLite's 64 bits."""

_PAGE = 200  # entries read at a time, so that a long statement does not hold up charges
_BUSY_LIMIT = 10.0  # seconds to wait for another process that writes

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    account TEXT PRIMARY KEY, currency TEXT NOT NULL, balance_cents INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, operation_id TEXT NOT NULL,
    charge_id TEXT NOT NULL, account TEXT NOT NULL, amount_cents INTEGER NOT NULL,
    reference TEXT NOT NULL, at_ns INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_by_account ON entries (account, seq);
CREATE INDEX IF NOT EXISTS entries_by_charge ON entries (charge_id, kind);
CREATE TABLE IF NOT EXISTS repeated (
    seq INTEGER PRIMARY KEY, method TEXT NOT NULL, operation_id TEXT NOT NULL,
    at_ns INTEGER NOT NULL
);
"""


class Wrong(StrEnum):
    """What kind of mistake a request has."""

    ARGUMENT = "argument"
    NOT_FOUND = "not found"
    PRECONDITION = "precondition"


class RefusedError(Exception):
    """The request cannot be carried out; nothing was done. The message says why."""

    def __init__(self, wrong: Wrong, message: str) -> None:
        super().__init__(message)
        self.wrong = wrong


class _Entry(NamedTuple):
    """An entry as it is stored, but for its number and its time."""

    kind: int
    operation_id: str
    charge_id: str
    account: str
    amount_cents: int
    reference: str


class Ledger:
    """Accounts, and what was charged and refunded. Safe for threads.

    An account is there when it is first asked for; it holds nothing, and may go below zero. Its
    currency is that of its first charge.

    Args:
        path: the file; made if it is absent.

    Attributes:
        store: where the keys of the calls are recorded, in the same file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._lock = threading.Lock()
        # Autocommit: it only reads, and notes what was asked again.
        self._db = sqlite3.connect(
            path, timeout=_BUSY_LIMIT, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(_SCHEMA)
        self.store = SQLiteStore(path, prepare=_write_through)
        # The store makes no table, because a service's belongs to its migrations. This is a demo.
        self._db.executescript(
            self.store.ddl.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS").replace(
                "CREATE INDEX", "CREATE INDEX IF NOT EXISTS"
            )
        )

    def close(self) -> None:
        """Close the file."""
        self.store.close()
        with self._lock:
            self._db.close()

    def charge(self, request: ChargeRequest, operation_id: str | None) -> ChargeReply:
        """Take the amount from the account, in the store's current transaction.

        Args:
            request: what to charge.
            operation_id: the identity of the charge; None for one that cannot be recognized.

        Raises:
            RefusedError: the request is not right.
        """
        _check_charge(request)
        identity = operation_id or f"unnamed-{uuid.uuid4().hex}"
        entry = _Entry(
            kind=ENTRY_KIND_CHARGE,
            operation_id=identity,
            charge_id=f"ch-{uuid.uuid4().hex}",
            account=request.account,
            amount_cents=request.amount_cents,
            reference=request.reference,
        )
        return ChargeReply(
            status=STATUS_CHARGED,
            operation_id=identity,
            charge_id=entry.charge_id,
            balance_cents=self._book(entry, request.currency),
        )

    def refund(self, request: RefundRequest, operation_id: str | None) -> RefundReply:
        """Give back what a charge took, in the store's current transaction.

        Args:
            request: which charge.
            operation_id: the identity of the refund; None for one that cannot be recognized.

        Raises:
            RefusedError: there is no such charge, or it was given back already.
        """
        identity = operation_id or f"unnamed-{uuid.uuid4().hex}"
        entries = (
            self.store.current()
            .execute(
                "SELECT kind, operation_id, charge_id, account, amount_cents, reference"
                " FROM entries WHERE charge_id = ? ORDER BY kind",
                (request.charge_id,),
            )
            .fetchall()
        )
        if not entries:
            raise RefusedError(Wrong.NOT_FOUND, f"there is no charge {request.charge_id!r}")
        last = _Entry(*entries[-1])
        if last.kind == ENTRY_KIND_REFUND:
            raise RefusedError(
                Wrong.PRECONDITION, f"charge {request.charge_id!r} was given back already"
            )
        self._book(last._replace(kind=ENTRY_KIND_REFUND, operation_id=identity))
        return RefundReply(status=STATUS_REFUNDED, refund_id=f"re-{uuid.uuid4().hex}")

    def note_repeated(self, method: str, operation_id: str) -> None:
        """Note that an operation was asked for again, and answered from its record."""
        with self._lock:
            self._db.execute(
                "INSERT INTO repeated (method, operation_id, at_ns) VALUES (?, ?, ?)",
                (method, operation_id, time.time_ns()),
            )

    def balance(self, account: str) -> int:
        """Return what the account holds, in hundredths of its currency's unit."""
        with self._lock:
            found = self._db.execute(
                "SELECT balance_cents FROM accounts WHERE account = ?", (account,)
            ).fetchone()
        return int(found[0]) if found else 0

    def statement(self, account: str) -> Iterator[StatementEntry]:
        """List the entries of the account, oldest first."""
        seq = 0
        while True:
            with self._lock:
                page = self._db.execute(
                    "SELECT seq, kind, operation_id, charge_id, amount_cents, at_ns FROM entries"
                    " WHERE account = ? AND seq > ? ORDER BY seq LIMIT ?",
                    (account, seq, _PAGE),
                ).fetchall()
            if not page:
                return
            for _, kind, operation_id, charge_id, amount, at_ns in page:
                entry = StatementEntry(
                    kind=kind, operation_id=operation_id, charge_id=charge_id, amount_cents=amount
                )
                entry.at.FromNanoseconds(at_ns)
                yield entry
            seq = page[-1][0]

    def _book(self, entry: _Entry, currency: str | None = None) -> int:
        """Write an entry and return the account's new balance."""
        db = self.store.current()
        found = db.execute(
            "SELECT currency, balance_cents FROM accounts WHERE account = ?", (entry.account,)
        ).fetchone()
        held, balance = found or (currency, 0)
        if currency is not None and held != currency:
            raise RefusedError(
                Wrong.PRECONDITION, f"account {entry.account!r} is in {held}, not in {currency}"
            )
        balance += entry.amount_cents if entry.kind == ENTRY_KIND_REFUND else -entry.amount_cents
        db.execute(
            "INSERT INTO accounts VALUES (?, ?, ?)"
            " ON CONFLICT (account) DO UPDATE SET balance_cents = excluded.balance_cents",
            (entry.account, held, balance),
        )
        db.execute(
            "INSERT INTO entries (kind, operation_id, charge_id, account, amount_cents, reference,"
            " at_ns) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*entry, time.time_ns()),
        )
        return int(balance)


def _write_through(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA synchronous=FULL")  # a commit is on the disk, not on its way there


def _check_charge(request: ChargeRequest) -> None:
    if not request.account:
        raise RefusedError(Wrong.ARGUMENT, "account is empty")
    if not 0 < request.amount_cents <= MOST_CENTS:
        raise RefusedError(
            Wrong.ARGUMENT, f"amount_cents is {request.amount_cents}: give 1 to {MOST_CENTS}"
        )
    if not re.fullmatch(r"[A-Z]{3}", request.currency):
        raise RefusedError(
            Wrong.ARGUMENT, f"currency is {request.currency!r}: give an ISO 4217 code, such as EUR"
        )
