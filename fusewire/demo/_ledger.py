"""The payments server's ledger: durable, and with one effect for each operation id.

What :meth:`Ledger.charge` and :meth:`Ledger.refund` return is on the disk. The table of entries has
no constraint that keeps an operation id from standing in it twice: only the look-up in the same
transaction does, so that a fault of it would show in the records.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
import uuid
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

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

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

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
CREATE TABLE IF NOT EXISTS replies (
    method TEXT NOT NULL, operation_id TEXT NOT NULL, request BLOB NOT NULL, reply BLOB NOT NULL,
    PRIMARY KEY (method, operation_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (
    seq INTEGER PRIMARY KEY, method TEXT NOT NULL, operation_id TEXT NOT NULL,
    came_to TEXT NOT NULL, at_ns INTEGER NOT NULL
);
"""

_Reply = TypeVar("_Reply", ChargeReply, RefundReply)


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
    """Accounts, what was charged and refunded, and every attempt at it. Safe for threads.

    An account is there when it is first asked for; it holds nothing, and may go below zero. Its
    currency is that of its first charge.

    Args:
        path: the file; made if it is absent.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._lock = threading.Lock()
        # Autocommit: transactions are begun and ended here, in so many words.
        self._db = sqlite3.connect(
            path, timeout=_BUSY_LIMIT, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")  # a commit is on the disk, not on its way there
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def charge(self, request: ChargeRequest, operation_id: str | None) -> ChargeReply:
        """Take the amount from the account, or return what the operation came to before.

        Args:
            request: what to charge.
            operation_id: the identity of the charge; None for one that cannot be recognized.

        Raises:
            RefusedError: the request is not right, or the operation id was used for another one.
        """
        identity = operation_id or f"unnamed-{uuid.uuid4().hex}"

        def make() -> ChargeReply:
            _check_charge(request)
            charge_id = f"ch-{uuid.uuid4().hex}"
            entry = _Entry(
                kind=ENTRY_KIND_CHARGE,
                operation_id=identity,
                charge_id=charge_id,
                account=request.account,
                amount_cents=request.amount_cents,
                reference=request.reference,
            )
            balance = self._book(entry, request.currency)
            return ChargeReply(
                status=STATUS_CHARGED,
                operation_id=identity,
                charge_id=charge_id,
                balance_cents=balance,
            )

        return self._once("Charge", identity, request, ChargeReply, make)

    def refund(self, request: RefundRequest, operation_id: str | None) -> RefundReply:
        """Give back what a charge took, or return what the operation came to before.

        Args:
            request: which charge.
            operation_id: the identity of the refund; None for one that cannot be recognized.

        Raises:
            RefusedError: there is no such charge, it was given back already, or the operation id
                was used for another request.
        """
        identity = operation_id or f"unnamed-{uuid.uuid4().hex}"

        def make() -> RefundReply:
            entries = self._db.execute(
                "SELECT kind, operation_id, charge_id, account, amount_cents, reference"
                " FROM entries WHERE charge_id = ? ORDER BY kind",
                (request.charge_id,),
            ).fetchall()
            if not entries:
                raise RefusedError(Wrong.NOT_FOUND, f"there is no charge {request.charge_id!r}")
            last = _Entry(*entries[-1])
            if last.kind == ENTRY_KIND_REFUND:
                raise RefusedError(
                    Wrong.PRECONDITION, f"charge {request.charge_id!r} was given back already"
                )
            self._book(last._replace(kind=ENTRY_KIND_REFUND, operation_id=identity))
            return RefundReply(status=STATUS_REFUNDED, refund_id=f"re-{uuid.uuid4().hex}")

        return self._once("Refund", identity, request, RefundReply, make)

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

    def _once(
        self,
        method: str,
        identity: str,
        request: Message,
        reply_class: Callable[[], _Reply],
        make: Callable[[], _Reply],
    ) -> _Reply:
        """Do the operation, or find what it came to: in one transaction, so that both are one."""
        asked = request.SerializeToString(deterministic=True)
        with self._transaction():
            known = self._db.execute(
                "SELECT request, reply FROM replies WHERE method = ? AND operation_id = ?",
                (method, identity),
            ).fetchone()
            refusal = None
            reply = reply_class()
            if known is None:
                try:
                    reply = make()
                except RefusedError as error:  # raised before anything was written
                    refusal = error
                else:
                    self._db.execute(
                        "INSERT INTO replies VALUES (?, ?, ?, ?)",
                        (method, identity, asked, reply.SerializeToString()),
                    )
            elif known[0] == asked:
                reply.ParseFromString(known[1])
            else:
                refusal = RefusedError(
                    Wrong.ARGUMENT, f"operation {identity!r} was asked with another request before"
                )
            came_to = "refused" if refusal else "made" if known is None else "repeated"
            self._db.execute(
                "INSERT INTO attempts (method, operation_id, came_to, at_ns) VALUES (?, ?, ?, ?)",
                (method, identity, came_to, time.time_ns()),
            )
        if refusal is not None:
            raise refusal
        return reply

    def _book(self, entry: _Entry, currency: str | None = None) -> int:
        """Write an entry and return the account's new balance; within a transaction."""
        found = self._db.execute(
            "SELECT currency, balance_cents FROM accounts WHERE account = ?", (entry.account,)
        ).fetchone()
        held, balance = found or (currency, 0)
        if currency is not None and held != currency:
            raise RefusedError(
                Wrong.PRECONDITION, f"account {entry.account!r} is in {held}, not in {currency}"
            )
        balance += entry.amount_cents if entry.kind == ENTRY_KIND_REFUND else -entry.amount_cents
        self._db.execute(
            "INSERT INTO accounts VALUES (?, ?, ?)"
            " ON CONFLICT (account) DO UPDATE SET balance_cents = excluded.balance_cents",
            (entry.account, held, balance),
        )
        self._db.execute(
            "INSERT INTO entries (kind, operation_id, charge_id, account, amount_cents, reference,"
            " at_ns) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*entry, time.time_ns()),
        )
        return int(balance)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            # Immediate: the look-up below is made with the write lock held, by all processes.
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


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
