"""What the end of a replayed call means for the message that stored it: a pure table."""

from __future__ import annotations

from enum import Enum

import grpc

from fusewire.interceptors import CallEnd


class ReplayEnd(Enum):
    """What is to become of a stored call whose replay did not end OK."""

    RETRY = "retry"
    """It may be sent again: the server honors the operation id, or did not let the call in."""
    REFUSED = "refused"
    """The server answered, and will not answer otherwise: a person decides."""
    AMBIGUOUS = "ambiguous"
    """It may have taken effect, and must not be sent again: a person decides."""


# Nobody looked at the request: a token has run out, or a right is missing. It waits in its lane
# until that is fixed, whatever the call.
_NOT_LET_IN = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})


def end_of(
    code: grpc.StatusCode,
    details: str = "",
    timeout: float | None = None,
    *,
    at_most_once: bool,
    hinted: bool = False,
) -> ReplayEnd:
    """Judge the status of a replay that did not end OK.

    Args:
        code: the status.
        details: the text that came with it, by which what is no answer of the server's is told.
        timeout: the seconds that the call was given.
        at_most_once: whether it must not be sent again where it may have taken effect.
        hinted: whether the server said when to come back: it said no only for now.
    """
    end = CallEnd("", code, details, (), timeout, None)
    if end.condition == "local":
        return ReplayEnd.RETRY  # nothing was sent
    if hinted and not at_most_once:
        return ReplayEnd.RETRY
    if end.final:
        return ReplayEnd.REFUSED
    if not at_most_once or code in _NOT_LET_IN:
        return ReplayEnd.RETRY
    # ABORTED is an answer for now, such as a transaction that lost its race: nothing happened, and
    # a person may send it again.
    answered = end.http_status is None and code is grpc.StatusCode.ABORTED
    return ReplayEnd.REFUSED if answered else ReplayEnd.AMBIGUOUS
