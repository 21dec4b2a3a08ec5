"""A person's word about work that is in doubt."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from fusewire._validation import invalid
from fusewire.idempotency._decisions import OK
from fusewire.idempotency._records import Answer, State
from fusewire.idempotency._sql import answer_parameters

if TYPE_CHECKING:
    from fusewire.idempotency._records import Record
    from fusewire.idempotency._sql import Parameters, Sql


class NotMade(Enum):
    """The type of :data:`NOT_MADE`."""

    NOT_MADE = "not made"


NOT_MADE: Final = NotMade.NOT_MADE
"""What a person says of work that was begun and had no effect: the next call does it.

A value of its own, because a reply that is missing by mistake must not have a payment made twice.
"""


def check_made(made: object) -> None:
    """Refuse what is neither a reply nor :data:`NOT_MADE`.

    Raises:
        SettingsError: it is neither.
    """
    if made is not NOT_MADE and not isinstance(made, bytes):
        raise invalid("made", "the bytes of the reply, or NOT_MADE", made)


def resolution(
    sql: Sql,
    record: Record,
    made: bytes | NotMade,
    named: Parameters,
    *,
    now_ms: int,
    expires_at_ms: int,
) -> tuple[str, Parameters] | None:
    """Return the statement that writes a person's word; None if the work is not in doubt.

    Args:
        sql: the statements.
        record: what is stored.
        made: the reply's bytes, or that it was not made.
        named: the parameters that name the record.
        now_ms: the time.
        expires_at_ms: until when the answer is kept.
    """
    running = record.lease_until_ms is not None and now_ms < record.lease_until_ms
    if record.state != State.CLAIMED or running:
        return None
    mine = named | {"claim": record.claim}
    if isinstance(made, NotMade):
        return sql.free, mine
    answered = answer_parameters(Answer(OK, reply=made))
    return sql.finish, mine | answered | {"expires_at": expires_at_ms}
