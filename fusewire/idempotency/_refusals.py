"""Refusals: what a caller gets whose call is not made, or not made again.

Each has a reason of one word, in the trailer ``fusewire-idempotency`` and as ``ErrorInfo`` in the
rich status. A program reads the reason; the text is for people.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from google.protobuf import duration_pb2

# googleapis-common-protos has .pyi files but no py.typed marker.
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from fusewire._key_text import IDEMPOTENCY_TRAILER
from fusewire.idempotency._records import Answer

REPLAYED = "replayed"
"""The trailer's value when the answer is a stored one."""

_DETAILS = "grpc-status-details-bin"
_DOMAIN = "fusewire"


class Reason(StrEnum):
    """Why a call was refused: the trailer's values, which programs compare with."""

    IN_PROGRESS = "in-progress"
    """Another call with the key is running. Nothing is known yet: ask again."""
    IN_DOUBT = "in-doubt"
    """The work was begun, and whether it took effect is not known. A person decides."""
    KEY_REUSED = "key-reused"
    """The key was used for another request."""
    KEY_MISSING = "key-missing"
    """The method asks for a key, and the call has none."""
    STALE_KEY = "stale-key"
    """The call was first sent so long ago that a record of it would have expired."""
    CANCELLED = "cancelled"
    """The key was cancelled. The work was not done, and will not be."""
    BUSY = "busy"
    """The database was locked by another writer. Nothing was done: ask again."""
    CONFLICT = "conflict"
    """The database rolled the transaction back because of another one. Nothing was done."""
    UNAVAILABLE = "unavailable"
    """The database could not be asked, or its last word did not come. Ask again: the record, if
    there is one, decides."""
    LATER_FORMAT = "later-format"
    """A later release has written the record, and this one cannot read it."""
    REPLY_TOO_LARGE = "reply-too-large"
    """The answer is larger than what may be stored."""


class _Status(NamedTuple):
    code: int
    text: str


# Numbers of grpc.StatusCode, so that this module loads without grpcio.
INVALID_ARGUMENT = 3
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
INTERNAL = 13
UNAVAILABLE = 14

_STATUSES = {
    Reason.IN_PROGRESS: _Status(ABORTED, "another call with this idempotency key is running"),
    Reason.IN_DOUBT: _Status(
        FAILED_PRECONDITION,
        "a call with this idempotency key was begun, and whether it took effect is not known",
    ),
    Reason.KEY_REUSED: _Status(
        INVALID_ARGUMENT, "this idempotency key was used for another request"
    ),
    Reason.KEY_MISSING: _Status(INVALID_ARGUMENT, "this method needs an idempotency-key"),
    Reason.STALE_KEY: _Status(
        FAILED_PRECONDITION,
        "this call was first sent so long ago that a record of it would have expired",
    ),
    Reason.CANCELLED: _Status(FAILED_PRECONDITION, "this idempotency key was cancelled"),
    Reason.BUSY: _Status(ABORTED, "the database is locked by another writer"),
    Reason.CONFLICT: _Status(
        ABORTED, "the database rolled this call back because of another transaction"
    ),
    Reason.UNAVAILABLE: _Status(UNAVAILABLE, "the database of the idempotency keys did not answer"),
    Reason.LATER_FORMAT: _Status(
        UNAVAILABLE, "a later release has recorded this call, and this server cannot read it"
    ),
    Reason.REPLY_TOO_LARGE: _Status(
        RESOURCE_EXHAUSTED, "the answer is larger than what may be stored of it"
    ),
}


def refusal(reason: Reason, *, retry_after: float | None = None) -> Answer:
    """Return the answer of a call that is refused.

    Args:
        reason: why.
        retry_after: the seconds after which to ask again, for reasons that pass.
    """
    code, text = _STATUSES[reason]
    status = status_pb2.Status(code=code, message=text)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=_DOMAIN)
    status.details.add().Pack(info)
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(retry_after * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    trailers = ((IDEMPOTENCY_TRAILER, str(reason)), (_DETAILS, status.SerializeToString()))
    return Answer(code, text.encode(), trailers)


def replayed(answer: Answer) -> Answer:
    """Return a stored answer as it is sent again, marked as such."""
    return answer._replace(trailers=(*answer.trailers, (IDEMPOTENCY_TRAILER, REPLAYED)))
