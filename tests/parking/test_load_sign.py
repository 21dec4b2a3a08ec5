"""What the end of a replay says about the load of its dependency."""

from __future__ import annotations

import pytest

from fusewire.operation import CallNote
from fusewire.parking import HandlerTimeoutError, ReplayFailure
from fusewire.parking._handler import Attempt
from fusewire.parking._load_sign import LoadSign, load_sign
from tests.support.turning_away import PAYMENTS, StatusError

REFUSED, LATE, OWN = ReplayFailure.REFUSED, ReplayFailure.LATE, ReplayFailure.OWN


def note(status: str, condition: str | None = None, retry_after: float | None = None) -> CallNote:
    return CallNote(PAYMENTS, "failure", status, retry_after, condition)


@pytest.mark.parametrize(
    ("noted", "sign"),
    [
        (note("RESOURCE_EXHAUSTED", "refused"), LoadSign(REFUSED)),
        (note("INTERNAL", "refused", 2.5), LoadSign(REFUSED, 2.5)),  # with a pushback
        (note("UNAVAILABLE"), LoadSign(REFUSED)),
        (note("DEADLINE_EXCEEDED"), LoadSign(LATE)),
        (note("RESOURCE_EXHAUSTED"), LoadSign(OWN)),  # the message is too large
        (note("UNAVAILABLE", "local"), LoadSign(OWN)),  # nothing was sent
        (note("UNAUTHENTICATED", "unauthenticated"), LoadSign(OWN)),
        (note("INVALID_ARGUMENT"), LoadSign(OWN)),
        (note("INTERNAL"), LoadSign(OWN)),
    ],
)
def test_the_status_of_a_guarded_call_decides(noted: CallNote, sign: LoadSign) -> None:
    assert load_sign(Attempt(ValueError(), notes=(noted,))) == sign


@pytest.mark.parametrize("asked", [301.0, 1e300, float("inf")])
def test_a_server_may_ask_for_five_minutes_at_most(asked: float) -> None:
    refused = Attempt(ValueError(), notes=(note("RESOURCE_EXHAUSTED", "refused", asked),))
    assert load_sign(refused) == LoadSign(REFUSED, 300.0)


def test_the_last_call_that_says_something_counts() -> None:
    full, late, own = note("UNAVAILABLE"), note("DEADLINE_EXCEEDED"), note("NOT_FOUND")
    assert load_sign(Attempt(ValueError(), notes=(full, late, own))) == LoadSign(LATE)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (HandlerTimeoutError("late"), LATE),
        (TimeoutError(), LATE),
        (ConnectionRefusedError(), REFUSED),
        (StatusError("UNAVAILABLE"), REFUSED),
        (StatusError("RESOURCE_EXHAUSTED"), REFUSED),
        (StatusError("DEADLINE_EXCEEDED"), LATE),
        (StatusError("NOT_FOUND"), OWN),
        (KeyError("a row is missing"), OWN),
    ],
)
def test_without_a_guarded_call_the_error_decides(error: Exception, kind: ReplayFailure) -> None:
    assert load_sign(Attempt(error)).kind is kind


def test_an_error_decides_nothing_beside_a_call_that_has_a_status() -> None:
    too_large = Attempt(StatusError("RESOURCE_EXHAUSTED"), notes=(note("RESOURCE_EXHAUSTED"),))
    assert load_sign(too_large).kind is OWN
