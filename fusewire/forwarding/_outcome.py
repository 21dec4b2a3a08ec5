"""What the end of a replayed call means for the message that stored it: a pure table."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import grpc

from fusewire.interceptors import CallEnd

if TYPE_CHECKING:
    from collections.abc import Collection


class ReplayOutcome(Enum):
    """What happens to a stored call whose replay did not end OK."""

    DONE = "done"
    """The status means that it was made before: it is done."""
    CANCELLED = "cancelled"
    """Its key was cancelled: it was not made, and will not be."""
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
    "cancelled": ReplayOutcome.CANCELLED,
}

_STORED = "replayed"
"""The word of a server of ours with the answer that it gave the first time."""


def outcome_of(
    code: grpc.StatusCode,
    details: str = "",
    timeout: float | None = None,
    *,
    at_most_once: bool,
    hinted: bool = False,
    word: str | None = None,
    sent_before: bool = False,
    done_on: Collection[grpc.StatusCode] = (),
) -> ReplayOutcome:
    """Judge the status of a replay that did not end OK.

    Args:
        code: the status.
        details: the text that came with it, which shows whether the server itself answered.
        timeout: the seconds that the call was given.
        at_most_once: whether it must not be sent again where it may have taken effect.
        hinted: whether the server said when to come back: its refusal is for now only.
        word: what a server of ours says about the key; None if it says nothing.
        sent_before: whether the call may have been sent before this replay.
        done_on: statuses by which the server says that the call was made before.
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
        return _of_answer(code, word, sent_before=sent_before, done_on=done_on)
    if not at_most_once or code in _NOT_LET_IN:
        return ReplayOutcome.RETRY
    # ABORTED is an answer for now, such as a transaction that lost its race: nothing happened, and
    # a person may send it again.
    answered = end.http_status is None and code is grpc.StatusCode.ABORTED
    return ReplayOutcome.REFUSED if answered else ReplayOutcome.AMBIGUOUS


def _of_answer(
    code: grpc.StatusCode,
    word: str | None,
    *,
    sent_before: bool,
    done_on: Collection[grpc.StatusCode],
) -> ReplayOutcome:
    if word is not None and word != _STORED:
        return ReplayOutcome.REFUSED  # it is about the key, and not about the work
    if code in done_on:
        return ReplayOutcome.DONE
    # What exists may be what an earlier sending of this call has made. A server that knows the
    # answer that it gave the first time leaves no such doubt.
    if code is grpc.StatusCode.ALREADY_EXISTS and sent_before and word is None:
        return ReplayOutcome.AMBIGUOUS
    return ReplayOutcome.REFUSED
