"""Decisions about a call are pure: by what is stored, and never by a clock alone."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusewire.idempotency._decisions import (
    CLOCK_SKEW_MS,
    Doubt,
    Effects,
    End,
    Refuse,
    Replay,
    Resume,
    Run,
    on_claim,
    on_end,
    on_record,
)
from fusewire.idempotency._records import FORMAT, Answer, Record, State
from fusewire.idempotency._refusals import Reason

HOUR = 3_600_000
OURS, THEIRS = b"o" * 16, b"t" * 16
THIS, OTHER = b"a" * 32, b"b" * 32

times = st.integers(min_value=0, max_value=2**62)
answers = st.builds(
    Answer,
    st.integers(0, 16),
    st.binary(max_size=20),
    st.just(()),
    st.none() | st.binary(max_size=20),
)
records = st.builds(
    Record,
    format=st.integers(1, FORMAT + 1),
    state=st.sampled_from(State),
    claim=st.sampled_from([OURS, THEIRS]),
    fingerprint=st.sampled_from([THIS, OTHER]),
    answer=st.none() | answers,
    created_at_ms=times,
    lease_until_ms=st.none() | times,
)


def record(
    state: State = State.CLAIMED,
    *,
    answer: Answer | None = None,
    fingerprint: bytes = THIS,
    lease_until_ms: int | None = None,
    number: int = FORMAT,
    claim: bytes = THEIRS,
) -> Record:
    return Record(number, state, claim, fingerprint, answer, 0, 2**63 - 1, lease_until_ms)


ANSWER = Answer(0, reply=b"reply")


@pytest.mark.parametrize(
    ("found", "decided"),
    [
        (record(State.ANSWERED, answer=ANSWER), Replay(ANSWER)),
        (record(State.ANSWERED, answer=Answer(5, b"no such account")), "its refusal"),
        (record(State.ANSWERED, answer=ANSWER, fingerprint=OTHER), Refuse(Reason.KEY_REUSED)),
        (record(fingerprint=OTHER), Refuse(Reason.KEY_REUSED)),
        (record(lease_until_ms=1001), Refuse(Reason.IN_PROGRESS)),
        (record(lease_until_ms=1000), Doubt(THEIRS)),
        (record(lease_until_ms=0), Doubt(THEIRS)),
        (record(), Doubt(THEIRS)),
        (record(claim=OURS), Resume()),
        (record(State.CANCELLED), Refuse(Reason.CANCELLED)),
        (record(State.CANCELLED, fingerprint=b""), Refuse(Reason.CANCELLED)),
        (record(number=FORMAT + 1, answer=ANSWER), Refuse(Reason.LATER_FORMAT)),
    ],
)
def test_a_record_decides(found: Record, decided: object) -> None:
    if decided == "its refusal":
        assert found.answer is not None
        decided = Replay(found.answer)
    assert on_record(found, THIS, OURS, now_ms=1000) == decided


@given(records, times)
def test_no_time_makes_a_call_run_that_another_has_begun(found: Record, now_ms: int) -> None:
    decided = on_record(found, THIS, OURS, now_ms=now_ms)
    assert not isinstance(decided, Run)
    assert not isinstance(decided, Resume) or found.claim == OURS


@given(records, times)
def test_an_answer_is_given_to_the_same_request_only(found: Record, now_ms: int) -> None:
    decided = on_record(found, THIS, OURS, now_ms=now_ms)
    if found.fingerprint == OTHER:
        assert not isinstance(decided, Replay)
    if isinstance(decided, Replay):
        assert decided.answer is found.answer


@given(records, times, times)
def test_time_changes_nothing_but_in_progress_to_doubt(
    found: Record, first: int, second: int
) -> None:
    earlier, later = sorted((first, second))
    before = on_record(found, THIS, OURS, now_ms=earlier)
    after = on_record(found, THIS, OURS, now_ms=later)
    assert before == after or (before == Refuse(Reason.IN_PROGRESS) and after == Doubt(found.claim))


@pytest.mark.parametrize(
    ("ago", "decided"),
    [
        (None, Run()),
        (0, Run()),
        (-2 * HOUR, Run()),  # its clock is ahead
        (HOUR - CLOCK_SKEW_MS - 1, Run()),
        (HOUR - CLOCK_SKEW_MS, Refuse(Reason.STALE_KEY)),
        (30 * HOUR, Refuse(Reason.STALE_KEY)),
    ],
)
def test_a_call_older_than_any_record_is_not_run(ago: int | None, decided: object) -> None:
    now = 1_800_000_000_000
    sent = None if ago is None else now - ago
    assert on_claim(sent, keep_ms=HOUR, now_ms=now) == decided


FINAL = frozenset({3, 5, 6, 9, 11})
CODES = [None, *(code.value[0] for code in grpc.StatusCode)]
STORED = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
}
NOTHING_HAPPENED = {
    "UNAVAILABLE",
    "ABORTED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "UNIMPLEMENTED",
}


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda code: code.name)
def test_in_the_transaction_an_end_is_stored_or_leaves_no_trace(code: grpc.StatusCode) -> None:
    end = on_end(code.value[0], effects=Effects.TRANSACTION, final=FINAL)
    assert end is (End.STORE if code.name in STORED else End.FREE)


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda code: code.name)
def test_elsewhere_the_handler_is_believed_only_where_its_status_says_nothing_happened(
    code: grpc.StatusCode,
) -> None:
    end = on_end(code.value[0], effects=Effects.ELSEWHERE, final=FINAL)
    if code.name in STORED:
        assert end is End.STORE
    else:
        assert end is (End.FREE if code.name in NOTHING_HAPPENED else End.DOUBT)


def test_an_exception_leaves_no_trace_in_the_transaction_and_a_doubt_elsewhere() -> None:
    assert on_end(None, effects=Effects.TRANSACTION, final=FINAL) is End.FREE
    assert on_end(None, effects=Effects.ELSEWHERE, final=FINAL) is End.DOUBT


@given(st.sampled_from(CODES), st.sampled_from(Effects))
def test_without_final_statuses_only_ok_is_stored(code: int | None, effects: Effects) -> None:
    assert (on_end(code, effects=effects, final=()) is End.STORE) == (code == 0)
