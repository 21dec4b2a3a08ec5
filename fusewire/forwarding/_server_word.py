"""What a server's service ``fusewire.idempotency.v1.Operations`` says of a call, in a word."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from fusewire.idempotency.v1.operations_pb2 import Operation


class ServerWord(StrEnum):
    """What a server says of a call."""

    MADE = "made"
    """It was made, and its answer is recorded."""
    REFUSED = "refused"
    """It was refused for good: the same call gets the same refusal again."""
    CANCELLED = "cancelled"
    """It was cancelled by its key, and will not be made."""
    NOT_MADE = "not made"
    """There is no record of it: it was not made within the time for which answers are recorded.

    If the server was not told when the call was first sent, it may have been made before that.
    """
    IN_PROGRESS = "in progress"
    """It is being made."""
    IN_DOUBT = "in doubt"
    """It was begun, and the server does not know how it ended."""
    STALE = "stale"
    """A record of it would have expired, so the server does not know."""
    NOT_RECORDED = "not recorded"
    """The server records no keys of this method."""
    DENIED = "denied"
    """The server does not say, because its caller may not ask."""
    NO_ANSWER = "no answer"
    """The server could not be asked."""


OF_THE_CALL = {
    grpc.StatusCode.INVALID_ARGUMENT: ServerWord.NOT_RECORDED,
    grpc.StatusCode.PERMISSION_DENIED: ServerWord.DENIED,
}
"""Statuses of a question that are about its call, and not about the server."""


def word_of(operation: Operation) -> ServerWord:
    """Return what a server has answered."""
    # Imported here: most programs ask no server, and the server's half loads with it.
    from fusewire.idempotency.v1 import operations_pb2 as v1  # noqa: PLC0415 - see above

    words = {
        v1.STATE_ANSWERED: ServerWord.REFUSED if operation.code else ServerWord.MADE,
        v1.STATE_NOT_FOUND: ServerWord.NOT_MADE,
        v1.STATE_IN_PROGRESS: ServerWord.IN_PROGRESS,
        v1.STATE_IN_DOUBT: ServerWord.IN_DOUBT,
        v1.STATE_CANCELLED: ServerWord.CANCELLED,
        v1.STATE_STALE: ServerWord.STALE,
    }
    return words.get(operation.state, ServerWord.NO_ANSWER)  # of a later release
