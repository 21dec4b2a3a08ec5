"""What the end of a replay means for the stored call: every status, under both promises."""

from __future__ import annotations

import grpc
import pytest

from fusewire.forwarding._outcome import ReplayOutcome, outcome_of

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
    expected = ReplayOutcome.REFUSED if code in FINAL else ReplayOutcome.RETRY
    assert outcome_of(code, at_most_once=False) is expected


@pytest.mark.parametrize("code", ENDS)
def test_an_at_most_once_call_is_sent_again_only_where_it_was_not_let_in(code: Code) -> None:
    if code in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}:
        expected = ReplayOutcome.RETRY
    elif code in FINAL or code is Code.ABORTED:
        expected = ReplayOutcome.REFUSED
    else:
        expected = ReplayOutcome.AMBIGUOUS
    assert outcome_of(code, at_most_once=True) is expected


@pytest.mark.parametrize("code", ENDS)
@pytest.mark.parametrize("at_most_once", [False, True])
def test_a_proxys_answer_is_not_taken_for_the_servers(code: Code, *, at_most_once: bool) -> None:
    end = outcome_of(code, "Received http2 header with status: 404", at_most_once=at_most_once)
    assert end is not ReplayOutcome.REFUSED


@pytest.mark.parametrize("at_most_once", [False, True])
@pytest.mark.parametrize(
    ("code", "details", "timeout"),
    [
        (Code.UNAVAILABLE, "Getting metadata from plugin failed with error: no token", 5.0),
        (Code.UNAVAILABLE, "Illegal metadata", 5.0),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", float("inf")),
    ],
)
def test_a_call_that_a_local_cause_kept_here_is_sent_again(
    code: Code, details: str, timeout: float, *, at_most_once: bool
) -> None:
    assert outcome_of(code, details, timeout, at_most_once=at_most_once) is ReplayOutcome.RETRY


@pytest.mark.parametrize("code", ENDS)
def test_a_server_that_says_when_to_come_back_says_no_only_for_now(code: Code) -> None:
    assert outcome_of(code, at_most_once=False, hinted=True) is ReplayOutcome.RETRY
    without = outcome_of(code, at_most_once=True)
    assert outcome_of(code, at_most_once=True, hinted=True) is without
