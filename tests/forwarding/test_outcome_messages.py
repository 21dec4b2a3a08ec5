"""Outcomes as they are stored in the queue that carries them home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.demo.payments.v1.payments_pb2 import ChargeReply, ChargeRequest
from fusewire.forwarding import (
    CallStatus,
    Outcome,
    OutcomeKind,
    ParkPolicy,
    UnreadableOutcomeError,
)
from fusewire.forwarding._call_codec import CallCodec
from fusewire.forwarding._outcome_messages import Ended, outcome_message, read_outcome
from fusewire.forwarding._outcomes import OutcomeHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers import Message

PLAIN = CallCodec(None, "charges")
KNOWN = "/fusewire.demo.payments.v1.Payments/Charge"


def stored(method: str = KNOWN, kind: OutcomeKind = OutcomeKind.OK) -> Message:
    request = ChargeRequest(account="alice").SerializeToString()
    reply = ChargeReply(operation_id="op-a").SerializeToString()
    status = CallStatus(grpc.StatusCode.OK, "fine", b"rich")
    return outcome_message(PLAIN, "op-a", method, kind, request, Ended(reply, status))


def read(message: Message, methods: dict[str, ParkPolicy] | None = None) -> Outcome:
    handler = OutcomeHandler(lambda outcome: None, PLAIN, methods or {}, lambda missing: None)
    view: Any = message
    return handler.read(view)


def test_messages_are_of_the_classes_that_the_generated_code_names() -> None:
    outcome = read(stored())
    assert outcome.request == ChargeRequest(account="alice")
    assert outcome.reply == ChargeReply(operation_id="op-a")
    assert outcome.status == CallStatus(grpc.StatusCode.OK, "fine", b"rich")


def test_a_policys_class_of_responses_comes_first_and_bytes_come_last() -> None:
    named = read(stored("/a.B/C"), {"/a.B/C": ParkPolicy(response=ChargeReply, idempotent=True)})
    assert named.reply == ChargeReply(operation_id="op-a")
    assert isinstance(read(stored("/a.B/C")).reply, bytes)


@pytest.mark.parametrize("kind", OutcomeKind)
def test_every_kind_is_read_as_it_was_written(kind: OutcomeKind) -> None:
    message = stored(kind=kind)
    assert message.headers["fusewire-outcome-final"] is kind.final
    outcome = read(message)
    assert (outcome.kind, outcome.final) == (kind, kind.final)


def test_what_needs_a_person_is_not_final() -> None:
    final = {kind.value for kind in OutcomeKind if kind.final}
    assert final == {"ok", "refused", "expired", "cancelled"}


def test_a_notice_and_the_final_outcome_have_ids_of_their_own() -> None:
    ids = {stored(kind=kind).message_id for kind in OutcomeKind}
    assert len(ids) == len(OutcomeKind)


def break_format(headers: dict[str, Any]) -> None:
    headers["fusewire-outcome-format"] = 2


def break_kind(headers: dict[str, Any]) -> None:
    headers["fusewire-outcome-kind"] = "made"


def break_status(headers: dict[str, Any]) -> None:
    headers["fusewire-outcome-status"] = "FINE"


def break_method(headers: dict[str, Any]) -> None:
    headers["fusewire-outcome-method"] = None


@pytest.mark.parametrize("change", [break_format, break_kind, break_status, break_method])
def test_what_cannot_be_read_is_said(change: Callable[[dict[str, Any]], None]) -> None:
    message = stored()
    headers = dict(message.headers)
    change(headers)
    with pytest.raises(UnreadableOutcomeError):
        read_outcome(
            PLAIN,
            message.body,
            headers,
            to_request=lambda method, data: data,
            to_reply=lambda method, data: data,
        )


def test_a_body_that_is_cut_off_is_none() -> None:
    message = stored()
    with pytest.raises(UnreadableOutcomeError, match="it cannot be read: ValueError"):
        read_outcome(
            PLAIN,
            message.body[:-1],
            message.headers,
            to_request=lambda method, data: data,
            to_reply=lambda method, data: data,
        )
