"""What the service `Operations` answers: the sequence of a question, and of a cancellation.

A call that is being made in a transaction has a record that nobody else sees. So a question about a
key without a record takes the key, as a cancellation does, and gives it back.
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from fusewire.idempotency._claiming import CLAIM_BYTES
from fusewire.idempotency._decisions import Refuse, on_claim
from fusewire.idempotency._records import FORMAT, NEVER, Record, State
from fusewire.idempotency._refusals import Reason
from fusewire.idempotency._sql import identity_parameters, read_record
from fusewire.idempotency._steps import Begin, Commit, Execute, Given, Rollback
from fusewire.idempotency._store import Trouble
from fusewire.idempotency.v1 import operations_pb2
from fusewire.idempotency.v1.operations_pb2 import Operation

if TYPE_CHECKING:
    from collections.abc import Generator

    from fusewire.idempotency._flow import Flow
    from fusewire.idempotency._records import Identity
    from fusewire.idempotency._sql import Parameters
    from fusewire.idempotency._steps import Step


class Action(StrEnum):
    """What a caller of `Operations` asks for."""

    QUERY = "query"
    """To know what became of a call."""
    CANCEL = "cancel"
    """That a call is not made."""


class Asked(NamedTuple):
    """What a caller asks for.

    Attributes:
        action: what.
        identity: of which work.
        first_sent_ms: when its call was sent first; None if that is not known.
    """

    action: Action
    identity: Identity
    first_sent_ms: int | None


def answering(flow: Flow, asked: Asked) -> Generator[Step, Any, Operation | Given]:
    """Return the steps of a question or a cancellation.

    It is tried twice: a record that comes between the look and the taking is looked at.

    Args:
        flow: of the method's interceptor.
        asked: what is asked for.
    """
    for last in (False, True):
        try:
            yield Begin(lazily=True)
            operation = yield from _answer(flow, asked)
            if operation is not None:
                return operation
        except Exception as error:  # noqa: BLE001 - any driver's; it is judged
            yield Rollback()
            trouble = flow.trouble(error)
            if trouble is Trouble.KEY_BUSY:
                return Operation(state=operations_pb2.STATE_IN_PROGRESS)
            if last or trouble is not Trouble.CONFLICT:
                what = f"a {asked.action} of its key failed"
                return flow.failed_claim(asked.identity.method, error, what)
    return flow.refused(Reason.CONFLICT)


def _answer(flow: Flow, asked: Asked) -> Generator[Step, Any, Operation | Given | None]:
    """Answer in one transaction; None if a record has come meanwhile."""
    now_ms = flow.now_ms()
    if rows := (yield Execute(flow.sql.find, identity_parameters(asked.identity))):
        yield Rollback()
        record = read_record(rows[0])
        return (
            flow.refused(Reason.LATER_FORMAT) if record.format > FORMAT else _told(record, now_ms)
        )
    if not (yield Execute(flow.sql.cancel, _taken(flow, asked, now_ms))):
        yield Rollback()
        return None
    keep_ms = flow.terms.keep_ms
    if isinstance(on_claim(asked.first_sent_ms, keep_ms=keep_ms, now_ms=now_ms), Refuse):
        yield Rollback()
        return Operation(state=operations_pb2.STATE_STALE)
    if asked.action is Action.QUERY:
        yield Rollback()
        return Operation(state=operations_pb2.STATE_NOT_FOUND)
    yield Commit()
    return _operation(operations_pb2.STATE_CANCELLED, now_ms)


def _taken(flow: Flow, asked: Asked, now_ms: int) -> Parameters:
    return identity_parameters(asked.identity) | {
        "claim": secrets.token_bytes(CLAIM_BYTES),
        "fingerprint": b"",
        "now": now_ms,
        "expires_at": min(now_ms + flow.terms.keep_ms, NEVER),
        "lease_until": None,
    }


def _told(record: Record, now_ms: int) -> Operation:
    """Return what a record says. One that has expired says the truth as long as it is there."""
    begun_ms, answer = record.created_at_ms, record.answer
    if record.state == State.CANCELLED:
        return _operation(operations_pb2.STATE_CANCELLED, begun_ms)
    if answer is None:
        running = record.lease_until_ms is not None and now_ms < record.lease_until_ms
        state = operations_pb2.STATE_IN_PROGRESS if running else operations_pb2.STATE_IN_DOUBT
        return _operation(state, begun_ms)
    operation = _operation(operations_pb2.STATE_ANSWERED, begun_ms)
    operation.code = answer.code
    operation.details = answer.details.decode(errors="replace")
    operation.reply = answer.reply or b""
    return operation


def _operation(state: operations_pb2.State.ValueType, begun_ms: int) -> Operation:
    operation = Operation(state=state)
    operation.begun_at.FromMilliseconds(begun_ms)
    return operation
