"""A unary gRPC call as it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf import message as protobuf

from fusewire._error_types import error_type
from fusewire._sendable import LONGEST_TIMEOUT
from fusewire.brokers import Message
from fusewire.errors import FusewireError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusewire.brokers import HeaderValue
    from fusewire.forwarding._policy import ParkPolicy

_PREFIX = "fusewire-call-"
FORMAT = 1
FORMAT_HEADER = f"{_PREFIX}format"
TIMEOUT = f"{_PREFIX}timeout-ms"
AT_MOST_ONCE = f"{_PREFIX}at-most-once"
_METHOD = f"{_PREFIX}method"
_METADATA = f"{_PREFIX}metadata"
_WINDOW = f"{_PREFIX}window-ms"
_DONE_ON = f"{_PREFIX}done-on"
_OUTCOME = f"{_PREFIX}outcome"
_MAX_REQUEST = 4 * 1024 * 1024  # bytes; gRPC's own default limit of a received message
_NONE: Mapping[str, HeaderValue] = MappingProxyType({})


class UnreadableCallError(FusewireError):
    """A message in a queue of calls is not a call that this version can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall:
    """A call to make later: all that is needed to send it, and no credentials.

    Attributes:
        operation_id: the identity of the operation, which the server gets as its key.
        method: ``/pkg.Service/Method``.
        request: the serialized request.
        metadata: what goes with it, besides the key.
        timeout: seconds for one attempt; None for the forwarder's own.
        at_most_once: it must not be sent again where it may have been sent before.
        not_after_ms: the time after which it is of no use, in milliseconds since 1970; known of
            encrypted calls only, because parking reads its own header, which anybody can change.
        window: seconds for which the server knows its key, from the first sending; None if that is
            the server's own to check.
        done_on: statuses by which the server says that it was made before.
        outcome: whether somebody waits for what becomes of it.
    """

    operation_id: str
    method: str
    request: bytes
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    timeout: float | None = None
    at_most_once: bool = False
    not_after_ms: int | None = None
    window: float | None = None
    done_on: frozenset[grpc.StatusCode] = frozenset()
    outcome: bool = False

    def message(self, queue: str, headers: Mapping[str, HeaderValue] = _NONE) -> Message:
        """Return the message that stores it, with `headers` besides its own."""
        return Message(
            body=self.request,
            content_type="application/grpc",
            message_id=self.operation_id,
            type=self.method,
            routing_key=queue,
            headers={
                **headers,
                FORMAT_HEADER: FORMAT,
                _METHOD: self.method,
                **({_METADATA: [list(pair) for pair in self.metadata]} if self.metadata else {}),
                **attempt_terms(self),
                **terms(self),
            },
        )


def read_call(operation_id: str, body: bytes, headers: Mapping[str, Any]) -> StoredCall:
    """Read a stored call.

    Raises:
        UnreadableCallError: it is something else, or of a newer format.
    """
    check_format(headers)
    return StoredCall(
        operation_id=operation_id,
        method=read_method(headers, _METHOD),
        request=body,
        metadata=_pairs(headers.get(_METADATA)),
        timeout=read_timeout(headers),
        at_most_once=bool(headers.get(AT_MOST_ONCE)),
        window=read_window(headers),
        done_on=read_done_on(headers),
        outcome=asks_for_outcome(headers),
    )


def attempt_terms(call: StoredCall) -> dict[str, HeaderValue]:
    """Return the headers of the first release that say how a call is sent, if they say something.

    That release reads them if they are absent, too.
    """
    headers: dict[str, HeaderValue] = {}
    if call.timeout is not None:
        headers[TIMEOUT] = milliseconds(call.timeout)
    if call.at_most_once:
        headers[AT_MOST_ONCE] = True
    return headers


def terms(call: StoredCall) -> dict[str, HeaderValue]:
    """Return the headers that came after the first release, where they say something."""
    headers: dict[str, HeaderValue] = {}
    if call.window is not None:
        headers[_WINDOW] = milliseconds(call.window)
    if call.done_on:
        headers[_DONE_ON] = " ".join(sorted(code.name for code in call.done_on))
    if call.outcome:
        headers[_OUTCOME] = True
    return headers


def asks_for_outcome(headers: Mapping[str, Any]) -> bool:
    """Return whether somebody waits for what becomes of a stored call."""
    return bool(headers.get(_OUTCOME))


def milliseconds(timeout: float | None) -> int | None:
    """Return a timeout as it is stored."""
    return None if timeout is None else round(timeout * 1000)


def check_format(headers: Mapping[str, Any]) -> None:
    """Check that a stored call is of the format that this version reads.

    Raises:
        UnreadableCallError: it is not.
    """
    version = headers.get(FORMAT_HEADER)
    if version != FORMAT:
        raise UnreadableCallError(
            f"header {FORMAT_HEADER} is {version!r:.200}, and this version reads {FORMAT}: does "
            "something else publish to this queue?"
        )


def read_method(headers: Mapping[str, Any], header: str) -> str:
    """Read the method of a stored call.

    Raises:
        UnreadableCallError: it is none.
    """
    method = headers.get(header)
    if not isinstance(method, str) or not method.startswith("/"):
        raise UnreadableCallError(f"header {header} is {method!r:.200}, which is no gRPC method")
    return method


def read_timeout(headers: Mapping[str, Any]) -> float | None:
    """Read the seconds for one attempt.

    Raises:
        UnreadableCallError: it is no number of milliseconds.
    """
    timeout = _whole_number(headers, TIMEOUT)
    # Earlier releases have stored deadlines that had passed already.
    return None if timeout is None or timeout <= 0 else timeout / 1000


def read_window(headers: Mapping[str, Any]) -> float | None:
    """Read the seconds for which the server knows its key.

    Raises:
        UnreadableCallError: it is no number of milliseconds.
    """
    window = _whole_number(headers, _WINDOW)
    return None if window is None else window / 1000


def read_done_on(headers: Mapping[str, Any]) -> frozenset[grpc.StatusCode]:
    """Read the statuses by which the server says that the call was made before.

    Raises:
        UnreadableCallError: they are none of gRPC's.
    """
    stored = headers.get(_DONE_ON, "")
    try:
        return frozenset(grpc.StatusCode[name] for name in stored.split())
    except (AttributeError, KeyError):
        raise UnreadableCallError(
            f"header {_DONE_ON} is {stored!r:.200}, which does not name statuses of gRPC"
        ) from None


def _whole_number(headers: Mapping[str, Any], header: str) -> int | None:
    value = headers.get(header)
    if value is not None and not isinstance(value, int):
        raise UnreadableCallError(f"header {header} is {value!r:.200}, which is no whole number")
    return value


def _pairs(stored: object) -> tuple[tuple[str, str | bytes], ...]:
    pairs = []
    for pair in stored if isinstance(stored, list) else ():
        match pair:
            case [str() as key, (str() | bytes()) as value]:
                pairs.append((key, value))
            case _:
                raise UnreadableCallError(f"header {_METADATA} holds {pair!r}, which is no pair")
    return cast("tuple[tuple[str, str | bytes], ...]", tuple(pairs))


def call_to_store(
    policy: ParkPolicy,
    method: str,
    request: Any,
    *,
    operation_id: str,
    metadata: tuple[tuple[str, str | bytes], ...],
    timeout: float | None,
) -> StoredCall:
    """Return what to store of a call.

    Args:
        policy: how calls of the method are queued.
        method: ``/pkg.Service/Method``.
        request: the request message.
        operation_id: the identity of the operation.
        metadata: what is stored with it.
        timeout: the seconds that its caller gave it; None without a deadline.

    Raises:
        FusewireError: it cannot be stored.
    """
    return StoredCall(
        operation_id=operation_id,
        method=method,
        request=request_bytes(policy, request),
        metadata=metadata,
        # The call's own may be over, or say nothing.
        timeout=timeout if timeout is not None and 0 < timeout < LONGEST_TIMEOUT else None,
        at_most_once=policy.at_most_once,
        window=policy.window,
        done_on=policy.done_on,
    )


def request_bytes(policy: ParkPolicy, request: Any) -> bytes:
    """Return the bytes of a request, the same ones for equal messages.

    Raises:
        FusewireError: it has none, or too many.
    """
    try:
        body = (policy.serializer or _serialize)(request)
    except Exception as failed:
        kind = error_type(type(failed))  # and not its text, which may quote the request
        raise FusewireError(f"its request cannot be serialized: {kind}") from failed
    if len(body) > _MAX_REQUEST:
        raise FusewireError(f"its request must have at most {_MAX_REQUEST} bytes, got {len(body)}")
    return body


def _serialize(request: Any) -> bytes:
    if isinstance(request, bytes):
        return request
    if isinstance(request, protobuf.Message):
        return request.SerializeToString(deterministic=True)
    serialize = getattr(request, "SerializeToString", None)
    if serialize is None:
        raise TypeError(f"{type(request).__name__} is no protobuf message: give serializer=…")
    return bytes(serialize())
