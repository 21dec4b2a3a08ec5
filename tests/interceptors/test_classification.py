from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # no py.typed

from fusewire.breaker import Outcome
from fusewire.errors import SettingsError
from fusewire.interceptors import DEFAULT_OUTCOMES, CallEnd, Classification
from fusewire.interceptors._retry_info import read_retry_after, write_retry_after
from fusewire.operation import KeyEnd

Code = grpc.StatusCode


def end(
    code: grpc.StatusCode,
    details: str = "",
    *,
    timeout: float | None = None,
    retry_after: Any = None,
) -> Any:
    return CallEnd("/p.S/M", code, details, (), timeout, retry_after)


LOCAL_CONDITIONS = [
    (Code.UNAVAILABLE, "Getting metadata from plugin failed with error: no token\nfor you"),
    (Code.UNAVAILABLE, "Illegal metadata"),
    (Code.UNAVAILABLE, "error fetching oauth2 token: timed out"),
    (Code.UNAVAILABLE, "error parsing oauth2 token"),
    (Code.UNAUTHENTICATED, "Could not generate JWT."),
    (
        Code.UNAUTHENTICATED,
        (
            "Established channel does not have a sufficient security level to transfer call "
            "credential."
        ),
    ),
    (
        Code.UNAUTHENTICATED,
        "Established channel does not have an auth property representing a security level.",
    ),
    (Code.UNAUTHENTICATED, "Incompatible credentials set on channel and call."),
    (Code.UNAUTHENTICATED, "call host does not match SSL server name"),
    (
        Code.INTERNAL,
        "Illegal status code from call credentials; original status: NOT_FOUND: no key",
    ),
]
FAILURES = {
    Code.UNAVAILABLE,
    Code.INTERNAL,
    Code.UNKNOWN,
    Code.DATA_LOSS,
    Code.DEADLINE_EXCEEDED,
}
IGNORED = {Code.CANCELLED, Code.RESOURCE_EXHAUSTED}


@pytest.mark.parametrize("code", list(Code))
def test_every_status_has_its_default_outcome(code: grpc.StatusCode) -> None:
    expected = Outcome.SUCCESS
    if code in FAILURES:
        expected = Outcome.FAILURE
    if code in IGNORED:
        expected = Outcome.IGNORED
    assert Classification()(end(code)) is expected
    assert DEFAULT_OUTCOMES[code] is expected


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (Code.INTERNAL, "Exception serializing request!"),
        (Code.INTERNAL, "Exception deserializing response!"),
        (Code.INTERNAL, "Invalid metadata"),
        (Code.UNKNOWN, "Exception iterating requests!"),
        (Code.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (9 vs. 4)"),
        (Code.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (9 vs. 4)"),
        *LOCAL_CONDITIONS,
    ],
)
def test_a_local_cause_is_no_evidence_whatever_the_table_says(
    code: grpc.StatusCode, details: str
) -> None:
    told = Classification({code: Outcome.FAILURE})
    assert told(end(code, details, retry_after=1.0)) is Outcome.IGNORED
    assert told(end(code, "something else")) is Outcome.FAILURE


def test_a_status_can_be_told_to_mean_something_else() -> None:
    told = Classification({Code.NOT_FOUND: Outcome.FAILURE, Code.UNAVAILABLE: Outcome.IGNORED})
    assert told(end(Code.NOT_FOUND)) is Outcome.FAILURE
    assert told(end(Code.UNAVAILABLE)) is Outcome.IGNORED
    assert told(end(Code.INTERNAL)) is Outcome.FAILURE


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (None, Outcome.FAILURE),
        (-1.0, Outcome.IGNORED),
        (0.0, Outcome.IGNORED),
        (0.04, Outcome.IGNORED),
        (0.05, Outcome.FAILURE),
    ],
)
def test_too_short_a_deadline_is_no_evidence(timeout: float | None, expected: Any) -> None:
    told = Classification(min_deadline=0.05)
    assert told(end(Code.DEADLINE_EXCEEDED, timeout=timeout)) is expected


@pytest.mark.parametrize("timeout", [float("inf"), float("-inf"), float("nan"), 1e10, -1e10])
def test_a_deadline_that_makes_no_sense_is_a_local_cause(timeout: float) -> None:
    ended = end(Code.DEADLINE_EXCEEDED, "Deadline Exceeded", timeout=timeout)
    assert Classification({Code.DEADLINE_EXCEEDED: Outcome.FAILURE})(ended) is Outcome.IGNORED
    assert ended.condition == "local"
    assert end(Code.UNAVAILABLE, timeout=timeout).condition is None
    assert end(Code.DEADLINE_EXCEEDED, timeout=1e9).condition is None


@pytest.mark.parametrize(("code", "details"), LOCAL_CONDITIONS)
def test_what_keeps_calls_from_being_sent_is_a_condition(
    code: grpc.StatusCode, details: str
) -> None:
    assert end(code, details).condition == "local"
    assert end(code, details).key_end is KeyEnd.NO_EFFECT
    assert end(Code.UNKNOWN, details).condition is None


@pytest.mark.parametrize(
    ("status", "code", "outcome", "condition"),
    [
        (400, Code.INTERNAL, Outcome.FAILURE, None),
        (401, Code.UNAUTHENTICATED, Outcome.IGNORED, "unauthenticated"),
        (403, Code.PERMISSION_DENIED, Outcome.IGNORED, "permission_denied"),
        (404, Code.UNIMPLEMENTED, Outcome.FAILURE, None),
        (429, Code.UNAVAILABLE, Outcome.FAILURE, None),
        (500, Code.UNKNOWN, Outcome.FAILURE, None),
        (502, Code.UNAVAILABLE, Outcome.FAILURE, None),
    ],
)
def test_a_proxys_answer_is_none_of_the_servers(
    status: int, code: grpc.StatusCode, outcome: Outcome, condition: str | None
) -> None:
    ended = end(code, f"Received http2 header with status: {status}")
    assert ended.http_status == status
    assert not ended.local
    assert Classification()(ended) is outcome
    assert ended.condition == condition
    assert end(code, "as the server says").http_status is None
    assert Classification({code: Outcome.SUCCESS})(ended) is Outcome.SUCCESS


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (Code.INVALID_ARGUMENT, "", KeyEnd.ANSWERED),
        (Code.INVALID_ARGUMENT, "Received http2 header with status: 400", KeyEnd.IN_DOUBT),
        (Code.RESOURCE_EXHAUSTED, "quota", KeyEnd.NO_EFFECT),
        (Code.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max", KeyEnd.NO_EFFECT),
        (Code.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max", KeyEnd.NO_EFFECT),
        (Code.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max", KeyEnd.IN_DOUBT),
        (Code.RESOURCE_EXHAUSTED, "SERVER: Sent message larger than max", KeyEnd.IN_DOUBT),
        (Code.RESOURCE_EXHAUSTED, "received metadata size exceeds hard limit", KeyEnd.IN_DOUBT),
        (Code.INTERNAL, "Exception serializing request!", KeyEnd.NO_EFFECT),
        (Code.INTERNAL, "Exception deserializing response!", KeyEnd.IN_DOUBT),
        (Code.ABORTED, "", KeyEnd.IN_DOUBT),
        (Code.UNIMPLEMENTED, "", KeyEnd.NO_EFFECT),
        (Code.UNAUTHENTICATED, "", KeyEnd.NO_EFFECT),
        (Code.CANCELLED, "", KeyEnd.IN_DOUBT),
    ],
)
def test_the_end_says_whether_the_work_of_a_key_is_done(
    code: grpc.StatusCode, details: str, expected: KeyEnd
) -> None:
    assert end(code, details).key_end is expected


def test_a_deadline_that_has_passed_already_is_no_evidence_by_default() -> None:
    assert Classification()(end(Code.DEADLINE_EXCEEDED, timeout=0)) is Outcome.IGNORED
    assert Classification()(end(Code.DEADLINE_EXCEEDED, timeout=0.001)) is Outcome.FAILURE


def test_an_exhausted_resource_counts_when_the_server_says_when_to_come_back() -> None:
    assert Classification()(end(Code.RESOURCE_EXHAUSTED, retry_after=2.0)) is Outcome.FAILURE
    told = Classification({Code.RESOURCE_EXHAUSTED: Outcome.IGNORED})
    assert told(end(Code.RESOURCE_EXHAUSTED, retry_after=2.0)) is Outcome.IGNORED


@pytest.mark.parametrize(
    "outcomes", [{"NOT_FOUND": Outcome.FAILURE}, {Code.NOT_FOUND: "failure"}, {5: Outcome.FAILURE}]
)
def test_a_table_entry_that_is_none_is_refused(outcomes: Any) -> None:
    with pytest.raises(SettingsError, match="outcomes"):
        Classification(outcomes)


def test_ok_cannot_be_told_to_be_a_failure() -> None:
    with pytest.raises(SettingsError, match="OK"):
        Classification({Code.OK: Outcome.FAILURE})


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", True])
def test_a_min_deadline_that_is_no_duration_is_refused(seconds: Any) -> None:
    with pytest.raises(SettingsError, match="min_deadline"):
        Classification(min_deadline=seconds)


def test_a_classification_does_not_change_with_the_table_it_was_made_of() -> None:
    table = {Code.NOT_FOUND: Outcome.FAILURE}
    told = Classification(table)
    table.clear()
    assert told(end(Code.NOT_FOUND)) is Outcome.FAILURE


def retry_info(seconds: float) -> bytes:
    status = status_pb2.Status(code=14, message="later")
    delay = Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    status.details.add().Pack(error_details_pb2.DebugInfo(detail="x"))
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status.SerializeToString()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ([], None),
        ([("grpc-retry-pushback-ms", "1500")], 1.5),
        ([("grpc-retry-pushback-ms", "0")], 0.0),
        ([("grpc-retry-pushback-ms", "-1")], None),
        ([("grpc-retry-pushback-ms", "soon")], None),
        ([("grpc-retry-pushback-ms", b"\xff")], None),
        ([("grpc-status-details-bin", retry_info(2.5))], 2.5),
        ([("grpc-status-details-bin", retry_info(-2.5))], None),
        ([("grpc-status-details-bin", b"\xff\xff")], None),
        ([("grpc-status-details-bin", b"")], None),
        ([("grpc-retry-pushback-ms", "500"), ("grpc-status-details-bin", retry_info(3))], 3.0),
        ([("retry-after", "9")], None),
    ],
)
def test_a_servers_hint_is_read_from_pushback_and_retry_info(metadata: Any, expected: Any) -> None:
    assert read_retry_after(metadata) == expected


@pytest.mark.parametrize("seconds", [0.0, 0.0015, 30.0, 1e9])
def test_our_own_hint_is_read_back_as_it_was_written(seconds: Any) -> None:
    assert read_retry_after(write_retry_after(seconds, "x")) == pytest.approx(seconds, abs=1e-3)


def test_without_an_end_in_sight_the_hint_is_not_to_retry() -> None:
    metadata = dict(write_retry_after(float("inf"), "x"))
    assert metadata["grpc-retry-pushback-ms"] == "-1"
    assert read_retry_after(metadata.items()) is None


@pytest.mark.parametrize(("duration", "outcome"), [(0.9, Outcome.IGNORED), (1.0, Outcome.FAILURE)])
def test_a_call_that_its_user_gave_up_after_max_wait_is_a_failure(
    duration: float, outcome: Outcome
) -> None:
    end = CallEnd("/p.S/M", grpc.StatusCode.CANCELLED, "", (), None, None, duration)
    assert Classification(max_wait=1.0)(end) is outcome
    assert Classification()(end) is Outcome.IGNORED


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), True, "1"])
def test_a_max_wait_that_is_no_duration_is_refused(seconds: Any) -> None:
    with pytest.raises(SettingsError, match="max_wait"):
        Classification(max_wait=seconds)
