"""Idempotency keys, made of the operation and of the request itself.

Two different requests never share a key, in whatever order they are made. The same request of the
same operation has the same key on every attempt and in every process::

    <operation id>/<method>/<32 hex>[/<n>]

The 32 digits are the first half of a SHA-256 over dependency, method and request, each preceded by
its length. Equal requests of one operation have numbers `n` from the second on.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.message import Message

from fusewire._key_text import key_of_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.interceptors._methods import Shape
    from fusewire.operation import KeyClaim, Operation

logger = logging.getLogger("fusewire.interceptors")


class RequestSource(Protocol):
    """What is known of a method's requests."""

    @property
    def shape(self) -> Shape:
        """Whether a call has one request and response, or streams of them."""

    @property
    def serialize(self) -> Callable[[Any], bytes] | None:
        """The method's serializer of requests; None if it is not known."""


class MethodKeys:
    """Makes the keys of one method's calls.

    Args:
        dependency: the name of this deployment of the service; may be empty.
        method: the method's path.
        idempotent: whether the user declared the method idempotent.
        parks: whether its fallback parks calls, which are sent later with their key.
        serialize: the fallback's own serializer, if it has one.
        sync: whether the calls are on a sync channel, which serializes a request at once.
    """

    def __init__(
        self,
        dependency: str,
        method: str,
        *,
        idempotent: bool,
        parks: bool,
        serialize: Callable[[Any], bytes] | None,
        sync: bool,
    ) -> None:
        self.method = method
        self.idempotent = idempotent
        self.parks = parks
        self.sync = sync
        self._serialize = serialize
        self._begun = hashlib.sha256()
        for part in (dependency, method):
            _add(self._begun, part.encode())
        self._warned: set[str] = set()

    def claim(
        self, operation: Operation, request: Any, serialize: Callable[[Any], bytes] | None
    ) -> KeyClaim | None:
        """Claim the first key that no other call with an equal request holds.

        Args:
            operation: the operation that the call is part of.
            request: the request message.
            serialize: the method's own serializer, if it is known.

        Returns:
            None if no key can be made of the request.
        """
        data = self._read(request, serialize or self._serialize)
        if data is None:
            return None
        digest = self._begun.copy()
        _add(digest, data)
        key = key_of_request(operation.id, self.method, digest.hexdigest()[:32])
        return operation.claim_key(key)

    def warn_ended(self) -> None:
        """Warn once of a call of an idempotent method that is made after its operation ended."""
        if self.idempotent:
            self._warn(_ENDED)

    def warn_stream(self) -> None:
        """Warn once of a call of an idempotent method that takes a stream of requests."""
        if self.idempotent:
            self._warn(_STREAM)

    def _read(self, request: Any, serialize: Callable[[Any], bytes] | None) -> bytes | None:
        """Return the bytes of a request; None if they cannot be made."""
        try:
            if isinstance(request, Message):
                # Partial, because a missing required field is reported when the request is sent.
                return request.SerializePartialToString(deterministic=True)
            if isinstance(request, bytes):
                return request
            made = None if serialize is None else serialize(request)
        except Exception:  # noqa: BLE001 - it fails again when the request is sent, and grpcio reports it
            return None
        if isinstance(made, bytes):
            return made
        self._warn(_UNDIGESTED, type(request).__qualname__)
        return None

    def _warn(self, text: str, *arguments: object) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(text, self.method, *arguments)


_STREAM = (
    "%s is declared idempotent and takes a stream of requests, and no key can be made of a stream "
    "before it is sent: give its calls an idempotency-key of their own"
)
_UNDIGESTED = (
    "%s gets no idempotency key: its request, a %s, is neither a protobuf message nor bytes, and "
    "no serializer is known that makes bytes of it. Give its calls an idempotency-key of their own"
)
_ENDED = (
    "%s is called by something that outlives its message's handler: the call gets no idempotency "
    "key, and may take effect twice. Await what the handler starts, or give the call an "
    "idempotency-key of its own"
)


def copy_of(request: Any) -> Any:
    """Return a copy of a protobuf message; anything else as it is."""
    if not isinstance(request, Message):
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    return copy


def _add(digest: Any, part: bytes) -> None:
    digest.update(len(part).to_bytes(8, "big"))
    digest.update(part)
