"""A refusal says why, in a word that programs read: as a trailer and as a rich error."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import (  # type: ignore[import-untyped] # no py.typed marker
    error_details_pb2,
    status_pb2,
)

from fusewire.idempotency import IDEMPOTENCY_TRAILER, Reason
from fusewire.idempotency._records import Answer
from fusewire.idempotency._refusals import refusal, replayed
from fusewire.interceptors import read_retry_after

CODES = {
    "in-progress": grpc.StatusCode.ABORTED,
    "in-doubt": grpc.StatusCode.FAILED_PRECONDITION,
    "key-reused": grpc.StatusCode.INVALID_ARGUMENT,
    "key-missing": grpc.StatusCode.INVALID_ARGUMENT,
    "stale-key": grpc.StatusCode.FAILED_PRECONDITION,
    "cancelled": grpc.StatusCode.FAILED_PRECONDITION,
    "busy": grpc.StatusCode.ABORTED,
    "conflict": grpc.StatusCode.ABORTED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "later-format": grpc.StatusCode.UNAVAILABLE,
    "reply-too-large": grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def test_every_reason_has_its_status() -> None:
    assert {str(reason) for reason in Reason} == set(CODES)


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_has_its_reason_as_a_trailer_and_as_a_rich_error(reason: Reason) -> None:
    answer = refusal(reason)
    assert answer.code == CODES[reason].value[0]
    trailers = dict(answer.trailers)
    assert trailers[IDEMPOTENCY_TRAILER] == reason
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (answer.code, answer.details.decode())
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "fusewire")
    assert read_retry_after(answer.trailers) is None


def test_a_refusal_that_passes_says_when_to_ask_again() -> None:
    answer = refusal(Reason.IN_PROGRESS, retry_after=1.5)
    assert read_retry_after(answer.trailers) == 1.5


def test_a_stored_answer_is_marked_and_otherwise_as_it_was() -> None:
    first = Answer(5, b"no such account", (("a", "b"),))
    again = replayed(first)
    assert again == first._replace(trailers=(("a", "b"), (IDEMPOTENCY_TRAILER, "replayed")))
