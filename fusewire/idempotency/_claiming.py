"""Claiming a key: the first statements of every sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fusewire.idempotency._sql import read_record
from fusewire.idempotency._steps import Begin, Execute, Rollback, Step
from fusewire.idempotency._store import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from fusewire.idempotency._records import Record
    from fusewire.idempotency._sql import Parameters, Sql

CLAIM_BYTES = 16
"""Random bytes of a claim: only the call that has them writes how its work has ended."""


class Claimed(NamedTuple):
    """The key was free, and is held in the transaction that has begun.

    Attributes:
        now_ms: when that was.
    """

    now_ms: int


class Found(NamedTuple):
    """The key has a record. A transaction has begun.

    Attributes:
        record: it.
        now_ms: when it was read.
    """

    record: Record
    now_ms: int


class Failed(NamedTuple):
    """The database could not be asked. The transaction was rolled back: nothing is claimed."""

    error: Exception


Taken = Claimed | Found | Failed | None
"""What came of a claim. None: others hold the key and give it back, again and again. The
transaction was rolled back."""


def take(
    sql: Sql,
    trouble: Callable[[BaseException], Trouble],
    claimed: Parameters,
    *,
    lease_ms: int | None,
    now_ms: Callable[[], int],
) -> Generator[Step, Any, Taken]:
    """Begin a transaction and claim a key in it; tried twice where that is safe.

    Nothing has run yet. So a conflict with another transaction, or a record that went away between
    the claim and the look, is not the caller's concern.

    Args:
        sql: the statements.
        trouble: what an error of the database means.
        claimed: the parameters that name the record, the claim and the fingerprint.
        lease_ms: milliseconds for which work elsewhere counts as running; None where it is done in
            the transaction.
        now_ms: the time.
    """
    for last in (False, True):
        try:
            yield Begin(lazily=True)
            now = now_ms()
            lease_until = None if lease_ms is None else now + lease_ms
            mine = {**claimed, "now": now, "lease_until": lease_until}
            if (yield Execute(sql.claim, mine)):
                return Claimed(now)
            found = yield Execute(sql.find, claimed)
            record = read_record(found[0]) if found else None
            if record is not None and record.expires_at_ms > now:
                return Found(record, now)
            if record is not None and (yield Execute(sql.renew, mine)):
                return Claimed(now)
        except Exception as error:  # noqa: BLE001 - any driver's; it is judged
            yield Rollback()
            if last or trouble(error) is not Trouble.CONFLICT:
                return Failed(error)
            continue
        yield Rollback()
    return None
