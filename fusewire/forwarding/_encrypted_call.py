"""A stored call whose request and metadata are encrypted.

Its method stands in a header of its own. So releases that know nothing of encryption find no
method, dead-letter the call as ``malformed``, and send nothing.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from fusewire.brokers import Message
from fusewire.forwarding._call import (
    AT_MOST_ONCE,
    FORMAT,
    FORMAT_HEADER,
    TIMEOUT,
    StoredCall,
    UnreadableCallError,
    asks_for_outcome,
    attempt_terms,
    check_format,
    milliseconds,
    read_done_on,
    read_method,
    read_timeout,
    read_window,
    terms,
)
from fusewire.forwarding._encryption import (
    ALGORITHM,
    Encrypted,
    KeyName,
    MissingKeyError,
    WrongTagError,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fusewire.brokers import HeaderValue
    from fusewire.forwarding._encryption import KeyRing

_PREFIX = "fusewire-encrypted-"
_ALGORITHM = f"{_PREFIX}with"
_KEY_ID = f"{_PREFIX}key-id"
_KEY_CHECK = f"{_PREFIX}key-check"
_METHOD = f"{_PREFIX}method"

_KIND = b"fusewire stored call 1"
"""What else is encrypted with the same keys begins otherwise, and cannot pass for a call."""

_TEXT, _BYTES = b"t", b"b"


def is_encrypted(headers: Mapping[str, Any]) -> bool:
    """Return whether a stored call is encrypted."""
    return _ALGORITHM in headers


def encrypt_call(
    call: StoredCall, ring: KeyRing, queue: str, headers: Mapping[str, HeaderValue]
) -> Message:
    """Return the message that stores `call` encrypted, with `headers` besides its own."""
    bound = _bound(call, milliseconds(call.timeout))
    encrypted = ring.encrypt(_plain(call), bound)
    return Message(
        body=encrypted.body,
        content_type="application/octet-stream",
        message_id=call.operation_id,
        type=call.method,
        routing_key=queue,
        headers={
            **headers,
            FORMAT_HEADER: FORMAT,
            **attempt_terms(call),
            _ALGORITHM: ALGORITHM,
            _KEY_ID: encrypted.key.id,
            _KEY_CHECK: encrypted.key.check,
            _METHOD: call.method,
            **terms(call),
        },
    )


def decrypt_call(
    operation_id: str, body: bytes, headers: Mapping[str, Any], ring: KeyRing | None
) -> StoredCall:
    """Read an encrypted call.

    Args:
        operation_id: the identity that the message has now.
        body: the message's body.
        headers: its headers.
        ring: the keys, if there are any.

    Raises:
        UnreadableCallError: it was changed, or is something else.
        MissingKeyError: it cannot be read here, and may be somewhere else.
    """
    check_format(headers)
    algorithm, key = headers[_ALGORITHM], _key(headers)
    if algorithm != ALGORITHM:
        raise MissingKeyError(
            f"header {_ALGORITHM} is {algorithm!r:.200}, and this version reads {ALGORITHM}"
        )
    if ring is None:
        raise MissingKeyError(
            f"the call is encrypted with key {key.id!r}, and this ParkedCalls has no encryption=",
            key,
        )
    method, timeout = read_method(headers, _METHOD), headers.get(TIMEOUT)
    call = StoredCall(
        operation_id=operation_id,
        method=method,
        request=b"",
        at_most_once=bool(headers.get(AT_MOST_ONCE)),
        window=read_window(headers),
        done_on=read_done_on(headers),
        outcome=asks_for_outcome(headers),
    )
    bound = _bound(call, timeout)
    try:
        plain = ring.decrypt(Encrypted(key, body), bound)
    except WrongTagError as error:
        raise UnreadableCallError(f"the call cannot be decrypted: {error}") from error
    request, not_after, *metadata = unpack(plain)
    return dataclasses.replace(
        call,
        request=request,
        metadata=tuple(_pairs(metadata)),
        timeout=read_timeout(headers),
        not_after_ms=int(not_after) if not_after else None,
    )


def seal(
    plain: bytes, bound: Sequence[bytes], ring: KeyRing
) -> tuple[bytes, dict[str, HeaderValue]]:
    """Encrypt what is no call: return the body, and the headers that say how.

    Args:
        plain: what is encrypted.
        bound: what it belongs to.
        ring: the keys.
    """
    encrypted = ring.encrypt(plain, bound)
    return encrypted.body, {
        _ALGORITHM: ALGORITHM,
        _KEY_ID: encrypted.key.id,
        _KEY_CHECK: encrypted.key.check,
    }


def unseal(
    body: bytes, headers: Mapping[str, Any], bound: Sequence[bytes], ring: KeyRing | None
) -> bytes:
    """Decrypt what :func:`seal` has encrypted.

    Raises:
        UnreadableCallError: it was changed, or is something else.
        MissingKeyError: it cannot be read here, and may be somewhere else.
    """
    algorithm, key = headers[_ALGORITHM], _key(headers)
    if algorithm != ALGORITHM or ring is None:
        raise MissingKeyError(f"it is encrypted with key {key.id!r}, which is not here", key)
    try:
        return ring.decrypt(Encrypted(key, body), bound)
    except WrongTagError as error:
        raise UnreadableCallError(f"it cannot be decrypted: {error}") from error


def _bound(call: StoredCall, timeout_ms: object) -> Sequence[bytes]:
    """Return what the body belongs to: all that is sent with it, or decides how it is sent."""
    return (
        _KIND,
        _utf8(call.operation_id),
        _utf8(call.method),
        b"" if timeout_ms is None else _utf8(str(timeout_ms)),
        b"at most once" if call.at_most_once else b"idempotent",
        *(_utf8(f"{header}={value}") for header, value in terms(call).items()),
    )


def _plain(call: StoredCall) -> bytes:
    not_after = b"" if call.not_after_ms is None else str(call.not_after_ms).encode()
    parts = [call.request, not_after]
    for key, value in call.metadata:
        text = value if isinstance(value, bytes) else value.encode()
        parts += [key.encode(), (_BYTES if isinstance(value, bytes) else _TEXT) + text]
    return pack(parts)


def _pairs(parts: Sequence[bytes]) -> list[tuple[str, str | bytes]]:
    pairs: list[tuple[str, str | bytes]] = []
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        kind, stored = value[:1], value[1:]
        pairs.append((key.decode(), stored if kind == _BYTES else stored.decode()))
    return pairs


def _key(headers: Mapping[str, Any]) -> KeyName:
    key_id, check = headers.get(_KEY_ID), headers.get(_KEY_CHECK)
    if not isinstance(key_id, str) or not isinstance(check, str):
        raise UnreadableCallError(f"headers {_KEY_ID} and {_KEY_CHECK} must both be texts")
    return KeyName(key_id, check)


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
