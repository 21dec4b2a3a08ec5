"""What the end of a replayed call means for the message that stored it: a pure table."""

from __future__ import annotations

from enum import Enum

import grpc


class ReplayEnd(Enum):
    """What is to become of a stored call whose replay did not end OK."""

    RETRY = "retry"
    """It may be sent again: the server honors the operation id, or did not let the call in."""
    REFUSED = "refused"
    """The server answered, and will not answer otherwise: a person decides."""
    AMBIGUOUS = "ambiguous"
    """It may have taken effect, and must not be sent again: a person decides."""


# The server looked at the request and said no; sent again, it would say the same.
_FINAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        # Not UNIMPLEMENTED: gRPC makes it of a proxy's 404, which ends when the route is there.
    }
)
# Nobody looked at the request: a token has run out, or a right is missing. It waits in its lane
# until that is mended, whatever the call.
_NOT_LET_IN = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})


def end_of(code: grpc.StatusCode, *, at_most_once: bool) -> ReplayEnd:
    """Judge the status of a replay that did not end OK."""
    if code in _FINAL:
        return ReplayEnd.REFUSED
    if not at_most_once or code in _NOT_LET_IN:
        return ReplayEnd.RETRY
    # ABORTED is an answer for now, such as a transaction that lost its race: nothing happened, and
    # a person may send it again.
    return ReplayEnd.REFUSED if code is grpc.StatusCode.ABORTED else ReplayEnd.AMBIGUOUS
