"""What the end of a replay means for the stored call: every status, under both promises."""

from __future__ import annotations

import grpc
import pytest

from fusewire.forwarding.outcome import ReplayEnd, end_of

Code = grpc.StatusCode

FINAL = {
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.FAILED_PRECONDITION,
    Code.OUT_OF_RANGE,
}
ENDS = [code for code in Code if code is not Code.OK]


@pytest.mark.parametrize("code", ENDS)
def test_an_idempotent_call_is_sent_again_unless_the_server_has_said_no_to_it(code: Code) -> None:
    expected = ReplayEnd.REFUSED if code in FINAL else ReplayEnd.RETRY
    assert end_of(code, at_most_once=False) is expected


@pytest.mark.parametrize("code", ENDS)
def test_an_at_most_once_call_is_sent_again_only_where_it_was_not_let_in(code: Code) -> None:
    if code in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}:
        expected = ReplayEnd.RETRY
    elif code in FINAL or code is Code.ABORTED:
        expected = ReplayEnd.REFUSED
    else:
        expected = ReplayEnd.AMBIGUOUS
    assert end_of(code, at_most_once=True) is expected
