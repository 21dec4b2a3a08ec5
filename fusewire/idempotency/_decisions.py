"""What to do with a call, and with its end: decisions as values, without I/O.

:func:`on_claim` decides about a call whose key was free, :func:`on_record` about one whose key has
a record, and :func:`on_end` about what the handler has left. Nothing here is decided by a clock but
whether a lease is over, and a lease that is over only makes a doubt visible.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from fusewire.idempotency._fingerprint import same_request
from fusewire.idempotency._records import FORMAT, Answer, Record, State
from fusewire.idempotency._refusals import Reason

if TYPE_CHECKING:
    from collections.abc import Collection

CLOCK_SKEW_MS = 300_000
"""Milliseconds by which the clock of the first sender of a call may differ from this one."""

OK = 0

_NOTHING_HAPPENED = frozenset({7, 8, 10, 12, 14, 16})
"""Numbers of the statuses by which a handler whose effect is elsewhere says that it has none:
PERMISSION_DENIED, RESOURCE_EXHAUSTED, ABORTED, UNIMPLEMENTED, UNAVAILABLE, UNAUTHENTICATED."""


class Effects(Enum):
    """Where a handler's effect is."""

    TRANSACTION = "transaction"
    """In the store's own database, in the transaction of the key."""
    ELSEWHERE = "elsewhere"
    """Anywhere else: it cannot be rolled back together with the key."""


@dataclass(frozen=True, slots=True)
class Run:
    """The key is held: run the handler."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The record is the call's own claim: its handler has committed it by itself."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The work was answered: give the stored answer."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not run the handler, and say why."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Doubt:
    """The work was begun, and its end is not known.

    Attributes:
        claim: the claim of the call that began it.
    """

    claim: bytes


class End(Enum):
    """What is done with the key when the handler has ended."""

    STORE = "store"
    """Store the answer: every later call gets it."""
    FREE = "free"
    """Leave no trace: the next call with the key runs."""
    DOUBT = "doubt"
    """Keep the key as it is: whether there was an effect is not known."""


def on_claim(first_sent_ms: int | None, *, keep_ms: int, now_ms: int) -> Run | Refuse:
    """Decide about a call whose key has no record.

    A call that was sent before may have had a record that has expired. Running it could be the
    second time.

    Args:
        first_sent_ms: when the call was sent first, by the clock of its sender; None if it did not
            say.
        keep_ms: how long a record is kept.
        now_ms: the time.
    """
    if first_sent_ms is not None and now_ms - first_sent_ms >= keep_ms - CLOCK_SKEW_MS:
        return Refuse(Reason.STALE_KEY)
    return Run()


def on_record(
    record: Record, fingerprint: bytes, claim: bytes, *, now_ms: int
) -> Resume | Replay | Refuse | Doubt:
    """Decide about a call whose key has a record. None is run by what a record says.

    Args:
        record: what is stored.
        fingerprint: that of the call's request.
        claim: the call's own claim. A handler that has ended the transaction itself has left it.
        now_ms: the time.
    """
    if record.format > FORMAT:
        return Refuse(Reason.LATER_FORMAT)
    if record.state == State.CANCELLED:
        return Refuse(Reason.CANCELLED)
    # Before anything else is said about the other call: its answer may be none of this caller's.
    if not same_request(record.fingerprint, fingerprint):
        return Refuse(Reason.KEY_REUSED)
    if record.answer is not None:
        return Replay(record.answer)
    return _on_begun(record, claim, now_ms)


def _on_begun(record: Record, claim: bytes, now_ms: int) -> Resume | Refuse | Doubt:
    if record.claim == claim:
        return Resume()
    if record.lease_until_ms is not None and now_ms < record.lease_until_ms:
        return Refuse(Reason.IN_PROGRESS)
    return Doubt(record.claim)


def on_end(code: int | None, *, effects: Effects, final: Collection[int]) -> End:
    """Decide what happens to the key when the handler has ended.

    Args:
        code: the number of the status it ended with; None if it raised an exception.
        effects: where its effect is.
        final: the statuses that are answers: the same request gets the same one again.
    """
    if code == OK or code in final:
        return End.STORE
    if effects is Effects.TRANSACTION or code in _NOTHING_HAPPENED:
        return End.FREE
    return End.DOUBT
