"""What the end of a replay means for the stored call: every status, under both promises."""

from __future__ import annotations

import grpc
import pytest

from fusewire.forwarding._outcome import ReplayOutcome, outcome_of
from fusewire.idempotency import Reason

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


@pytest.mark.parametrize(
    ("word", "code", "idempotent", "at_most_once"),
    [
        ("in-progress", Code.ABORTED, ReplayOutcome.POSTPONED, ReplayOutcome.REFUSED),
        ("busy", Code.ABORTED, ReplayOutcome.POSTPONED, ReplayOutcome.REFUSED),
        ("in-doubt", Code.FAILED_PRECONDITION, ReplayOutcome.IN_DOUBT, ReplayOutcome.IN_DOUBT),
        ("stale-key", Code.FAILED_PRECONDITION, ReplayOutcome.STALE_KEY, ReplayOutcome.STALE_KEY),
        ("key-reused", Code.INVALID_ARGUMENT, ReplayOutcome.REFUSED, ReplayOutcome.REFUSED),
        ("key-missing", Code.INVALID_ARGUMENT, ReplayOutcome.REFUSED, ReplayOutcome.REFUSED),
        ("conflict", Code.ABORTED, ReplayOutcome.RETRY, ReplayOutcome.REFUSED),
        ("unavailable", Code.UNAVAILABLE, ReplayOutcome.RETRY, ReplayOutcome.AMBIGUOUS),
        ("later-format", Code.UNAVAILABLE, ReplayOutcome.RETRY, ReplayOutcome.AMBIGUOUS),
        ("cancelled", Code.FAILED_PRECONDITION, ReplayOutcome.CANCELLED, ReplayOutcome.CANCELLED),
        (
            "reply-too-large",
            Code.RESOURCE_EXHAUSTED,
            ReplayOutcome.RETRY,
            ReplayOutcome.AMBIGUOUS,
        ),
        ("replayed", Code.NOT_FOUND, ReplayOutcome.REFUSED, ReplayOutcome.REFUSED),
    ],
)
def test_what_a_server_says_about_the_key_is_believed(
    word: str, code: Code, idempotent: ReplayOutcome, at_most_once: ReplayOutcome
) -> None:
    assert outcome_of(code, at_most_once=False, word=word) is idempotent
    assert outcome_of(code, at_most_once=True, word=word) is at_most_once


def test_every_reason_of_a_server_has_a_row() -> None:
    rows = test_what_a_server_says_about_the_key_is_believed.pytestmark[0].args[1]  # type: ignore[attr-defined] # pytest's
    assert {row[0] for row in rows} == {*map(str, Reason), "replayed"}


@pytest.mark.parametrize("code", sorted(FINAL, key=str))
@pytest.mark.parametrize("sent_before", [False, True])
def test_a_status_that_means_made_is_done(code: Code, *, sent_before: bool) -> None:
    end = outcome_of(code, at_most_once=False, sent_before=sent_before, done_on={code})
    assert end is ReplayOutcome.DONE


@pytest.mark.parametrize("code", ENDS)
def test_what_may_be_of_the_calls_own_making_is_no_refusal(code: Code) -> None:
    first = outcome_of(code, at_most_once=False)
    again = outcome_of(code, at_most_once=False, sent_before=True)
    exists = code is Code.ALREADY_EXISTS
    assert again is (ReplayOutcome.AMBIGUOUS if exists else first)


def test_a_stored_answer_is_the_first_one_and_leaves_no_doubt() -> None:
    ends = [
        outcome_of(
            Code.ALREADY_EXISTS,
            at_most_once=False,
            sent_before=True,
            word="replayed",
            done_on=done_on,
        )
        for done_on in ((), {Code.ALREADY_EXISTS})
    ]
    assert ends == [ReplayOutcome.REFUSED, ReplayOutcome.DONE]


def test_what_is_said_about_the_key_is_not_taken_for_made() -> None:
    end = outcome_of(
        Code.INVALID_ARGUMENT,
        at_most_once=False,
        word="key-reused",
        done_on={Code.INVALID_ARGUMENT},
    )
    assert end is ReplayOutcome.REFUSED


def test_a_proxys_answer_does_not_mean_made() -> None:
    end = outcome_of(
        Code.NOT_FOUND,
        "Received http2 header with status: 404",
        at_most_once=False,
        done_on={Code.NOT_FOUND},
    )
    assert end is ReplayOutcome.RETRY
