"""A unary gRPC call as it is stored, and the receipt that its caller gets."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from fusewire.brokers import Message
from fusewire.errors import FusewireError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusewire.brokers import HeaderValue

_PREFIX = "fusewire-call-"
FORMAT = 1
FORMAT_HEADER = f"{_PREFIX}format"
TIMEOUT = f"{_PREFIX}timeout-ms"
AT_MOST_ONCE = f"{_PREFIX}at-most-once"
_METHOD = f"{_PREFIX}method"
_METADATA = f"{_PREFIX}metadata"
_NONE: Mapping[str, HeaderValue] = MappingProxyType({})


class UnreadableCallError(FusewireError):
    """A message in a queue of calls is not a call that this version can read."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a call is stored: it exists only after the broker has confirmed it.

    Attributes:
        operation_id: the identity of the operation, which the server will see as its
            ``idempotency-key``; a caller can ask for the outcome by it.
        method: ``/pkg.Service/Method``.
        parked_at: Unix time, in seconds.
    """

    operation_id: str
    method: str
    parked_at: float


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
    """

    operation_id: str
    method: str
    request: bytes
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    timeout: float | None = None
    at_most_once: bool = False
    not_after_ms: int | None = None

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
                _METADATA: [[key, value] for key, value in self.metadata],
                TIMEOUT: milliseconds(self.timeout),
                AT_MOST_ONCE: self.at_most_once,
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
    )


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
    timeout = headers.get(TIMEOUT)
    if timeout is not None and not isinstance(timeout, int):
        raise UnreadableCallError(f"header {TIMEOUT} is {timeout!r:.200}, which is no whole number")
    # Earlier releases have stored deadlines that had passed already.
    return None if timeout is None or timeout <= 0 else timeout / 1000


def _pairs(stored: object) -> tuple[tuple[str, str | bytes], ...]:
    pairs = []
    for pair in stored if isinstance(stored, list) else ():
        match pair:
            case [str() as key, (str() | bytes()) as value]:
                pairs.append((key, value))
            case _:
                raise UnreadableCallError(f"header {_METADATA} holds {pair!r}, which is no pair")
    return cast("tuple[tuple[str, str | bytes], ...]", tuple(pairs))
