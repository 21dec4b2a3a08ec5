"""What the end of a replayed call means for the message that stored it: a pure table."""

from __future__ import annotations

from enum import Enum

import grpc

from fusewire.interceptors import CallEnd


class ReplayOutcome(Enum):
    """What happens to a stored call whose replay did not end OK."""

    POSTPONED = "postponed"
    """The server does not know yet, or is busy: it is sent again later, which is no attempt."""
    RETRY = "retry"
    """It may be sent again: the server honors the operation id, or did not let the call in."""
    REFUSED = "refused"
    """The server answered, and will not answer otherwise: a person decides."""
    AMBIGUOUS = "ambiguous"
    """It may have taken effect, and must not be sent again: a person decides."""
    IN_DOUBT = "in-doubt"
    """The server has begun it, and does not know whether it took effect: a person decides."""
    STALE_KEY = "stale-key"
    """It was sent first so long ago that the server may have forgotten it: a person decides."""


# The server did not look at the request: a token has expired, or a right is missing. The call
# waits in its lane until that is fixed, also if it is at most once.
_NOT_LET_IN = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})


# What a server of ours says about the key, in its trailer. Its other words have a status that says
# the same.
_OF_THE_KEY = {
    "in-progress": ReplayOutcome.POSTPONED,
    "busy": ReplayOutcome.POSTPONED,
    "in-doubt": ReplayOutcome.IN_DOUBT,
    "stale-key": ReplayOutcome.STALE_KEY,
}


def outcome_of(
    code: grpc.StatusCode,
    details: str = "",
    timeout: float | None = None,
    *,
    at_most_once: bool,
    hinted: bool = False,
    word: str | None = None,
) -> ReplayOutcome:
    """Judge the status of a replay that did not end OK.

    Args:
        code: the status.
        details: the text that came with it, which shows whether the server itself answered.
        timeout: the seconds that the call was given.
        at_most_once: whether it must not be sent again where it may have taken effect.
        hinted: whether the server said when to come back: its refusal is for now only.
        word: what a server of ours says about the key; None if it says nothing.
    """
    if (known := _OF_THE_KEY.get(word or "")) is not None and not (
        at_most_once and known is ReplayOutcome.POSTPONED
    ):
        return known
    end = CallEnd("", code, details, (), timeout, None)
    if end.condition == "local":
        return ReplayOutcome.RETRY  # nothing was sent
    if hinted and not at_most_once:
        return ReplayOutcome.RETRY
    if end.final:
        return ReplayOutcome.REFUSED
    if not at_most_once or code in _NOT_LET_IN:
        return ReplayOutcome.RETRY
    # ABORTED is an answer for now, such as a transaction that lost its race: nothing happened, and
    # a person may send it again.
    answered = end.http_status is None and code is grpc.StatusCode.ABORTED
    return ReplayOutcome.REFUSED if answered else ReplayOutcome.AMBIGUOUS
