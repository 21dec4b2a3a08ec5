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
_FORMAT = 1
_FORMAT_HEADER = f"{_PREFIX}format"
_METHOD = f"{_PREFIX}method"
_METADATA = f"{_PREFIX}metadata"
_TIMEOUT = f"{_PREFIX}timeout-ms"
_AT_MOST_ONCE = f"{_PREFIX}at-most-once"
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
    """

    operation_id: str
    method: str
    request: bytes
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    timeout: float | None = None
    at_most_once: bool = False

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
                _FORMAT_HEADER: _FORMAT,
                _METHOD: self.method,
                _METADATA: [[key, value] for key, value in self.metadata],
                _TIMEOUT: None if self.timeout is None else round(self.timeout * 1000),
                _AT_MOST_ONCE: self.at_most_once,
            },
        )


def read_call(operation_id: str, body: bytes, headers: Mapping[str, Any]) -> StoredCall:
    """Read a stored call.

    Raises:
        UnreadableCallError: it is something else, or of a newer format.
    """
    version = headers.get(_FORMAT_HEADER)
    if version != _FORMAT:
        raise UnreadableCallError(
            f"header {_FORMAT_HEADER} is {version!r}, and this version reads {_FORMAT}: does "
            "something else publish to this queue?"
        )
    method = headers.get(_METHOD)
    timeout = headers.get(_TIMEOUT)
    if not isinstance(method, str) or not method.startswith("/"):
        raise UnreadableCallError(f"header {_METHOD} is {method!r}, which is no gRPC method")
    if timeout is not None and not isinstance(timeout, int):
        raise UnreadableCallError(f"header {_TIMEOUT} is {timeout!r}, which is no whole number")
    return StoredCall(
        operation_id=operation_id,
        method=method,
        request=body,
        metadata=_pairs(headers.get(_METADATA)),
        # Earlier releases have stored deadlines that had passed already.
        timeout=None if timeout is None or timeout <= 0 else timeout / 1000,
        at_most_once=bool(headers.get(_AT_MOST_ONCE)),
    )


def _pairs(stored: object) -> tuple[tuple[str, str | bytes], ...]:
    pairs = []
    for pair in stored if isinstance(stored, list) else ():
        match pair:
            case [str() as key, (str() | bytes()) as value]:
                pairs.append((key, value))
            case _:
                raise UnreadableCallError(f"header {_METADATA} holds {pair!r}, which is no pair")
    return cast("tuple[tuple[str, str | bytes], ...]", tuple(pairs))
