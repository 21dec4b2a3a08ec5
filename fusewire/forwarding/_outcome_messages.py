"""Between outcomes and the messages that carry them home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from fusewire._key_text import key_of_request
from fusewire.brokers import Message
from fusewire.errors import FusewireError
from fusewire.forwarding._encryption import pack, unpack
from fusewire.forwarding._outcome_kinds import CallStatus, Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fusewire.brokers import HeaderValue
    from fusewire.forwarding._call_codec import CallCodec

_PREFIX = "fusewire-outcome-"
FORMAT = 1
FORMAT_HEADER = f"{_PREFIX}format"
_OPERATION_ID = f"{_PREFIX}operation-id"
_METHOD = f"{_PREFIX}method"
_KIND = f"{_PREFIX}kind"
_FINAL = f"{_PREFIX}final"
_STATUS = f"{_PREFIX}status"

_BOUND = b"fusewire outcome 1"
"""What else is encrypted with the same keys begins otherwise, and cannot pass for an outcome."""

_YES = b"1"


class UnreadableOutcomeError(FusewireError):
    """A message in a queue of outcomes is none that this version can read."""


class Ended(NamedTuple):
    """What is known of the end of a call, in bytes.

    Attributes:
        reply: the serialized response; None where there is none.
        status: what its last attempt ended with; None if none was made here.
    """

    reply: bytes | None = None
    status: CallStatus | None = None


def outcome_message(  # noqa: PLR0917 - all that an outcome has
    codec: CallCodec,
    operation_id: str,
    method: str,
    kind: OutcomeKind,
    request: bytes | None,
    ended: Ended,
) -> Message:
    """Return the message that carries an outcome home.

    Raises:
        FusewireError: it is to be encrypted, and there are no keys.
    """
    status = ended.status
    parts = [
        *_optional(request),
        *_optional(ended.reply),
        b"" if status is None else status.details.encode(),
        b"" if status is None else status.rich,
    ]
    body, sealed = codec.seal(pack(parts), _bound(operation_id, method, kind))
    headers: dict[str, HeaderValue] = {
        FORMAT_HEADER: FORMAT,
        _OPERATION_ID: operation_id,
        _METHOD: method,
        _KIND: kind.value,
        _FINAL: kind.final,
        _STATUS: None if status is None else status.code.name,
        **sealed,
    }
    return Message(
        body=body,
        content_type="application/octet-stream",
        # A notice and the final outcome of one call are two messages.
        message_id=key_of_request(operation_id, "outcome", kind.value),
        type=method or None,
        headers=headers,
    )


def read_outcome(
    codec: CallCodec,
    body: bytes,
    headers: Mapping[str, Any],
    *,
    to_request: Callable[[str, bytes], Any],
    to_reply: Callable[[str, bytes], Any],
) -> Outcome:
    """Read an outcome.

    Args:
        codec: decrypts it.
        body: the message's body.
        headers: its headers.
        to_request: makes a request of a method and bytes.
        to_reply: makes a response of a method and bytes.

    Raises:
        UnreadableOutcomeError: it is something else, or of a newer format, or was changed.
        MissingKeyError: it cannot be read here and now.
    """
    if (version := headers.get(FORMAT_HEADER)) != FORMAT:
        raise UnreadableOutcomeError(
            f"header {FORMAT_HEADER} is {version!r:.200}, and this version reads {FORMAT}: does "
            "something else publish to this queue?"
        )
    operation_id, method = headers.get(_OPERATION_ID), headers.get(_METHOD)
    code = headers.get(_STATUS)
    try:
        kind = OutcomeKind(str(headers.get(_KIND)))
        status_code = None if code is None else grpc.StatusCode[code]
    except (KeyError, ValueError) as error:
        raise UnreadableOutcomeError(f"its headers cannot be read: {error}") from error
    if not isinstance(operation_id, str) or not isinstance(method, str):
        raise UnreadableOutcomeError(f"headers {_OPERATION_ID} and {_METHOD} must be texts")
    plain = codec.unseal(body, headers, _bound(operation_id, method, kind))
    try:
        has_request, request, has_reply, reply, details, rich = unpack(plain)
        return Outcome(
            operation_id=operation_id,
            method=method,
            kind=kind,
            final=kind.final,
            reply=to_reply(method, reply) if has_reply else None,
            status=None if status_code is None else CallStatus(status_code, details.decode(), rich),
            request=to_request(method, request) if has_request else None,
        )
    except Exception as error:
        # Not its text: nobody knows what that quotes.
        raise UnreadableOutcomeError(f"it cannot be read: {type(error).__name__}") from error


def _optional(value: bytes | None) -> tuple[bytes, bytes]:
    return (b"", b"") if value is None else (_YES, value)


def _bound(operation_id: str, method: str, kind: OutcomeKind) -> tuple[bytes, ...]:
    texts = (operation_id, method, kind.value)
    return (_BOUND, *(text.encode(errors="surrogatepass") for text in texts))
