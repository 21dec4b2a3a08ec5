"""The texts of idempotency keys, as they are sent, and of what servers say about them.

The key of a call is made of the operation and of the request itself::

    <operation id>/<method>/<32 hex>[/<n>]

An id or a method that is too long is replaced by its SHA-256. So a key is below 512 bytes.
"""

from __future__ import annotations

import functools
import hashlib
from urllib.parse import quote

IDEMPOTENCY_TRAILER = "fusewire-idempotency"
"""Trailing metadata of answers that do not come from a server's handler: ``replayed``, or the
reason of a refusal."""

ASSIGNED = "assigned-"
"""What an operation id begins with that a consumer has made up for a message that had none. Copies
of the message may have another one, so it recognizes nothing."""

_LONGEST_ID = 128
_LONGEST_SENT = 16_000  # a server refuses 16 KiB of metadata
_LONGEST_METHOD = 320  # with it, and with an `n` of ten digits, a key stays below 512 bytes


def key_of_request(operation_id: str, method: str, digest: str) -> str:
    """Return the key of a call, without the number that distinguishes equal requests.

    Args:
        operation_id: the operation's id.
        method: the method's path.
        digest: 32 hexadecimal digits, made of the request.
    """
    return f"{_id(operation_id)}/{_method(method)}/{digest}"


def key_of_id(operation_id: str) -> str:
    """Return an operation id as a key of its own: as it is, wherever gRPC can send it so.

    Earlier releases have stored calls under ids that gRPC cannot send, and have never sent them.
    """
    if operation_id.isascii() and operation_id.isprintable() and len(operation_id) <= _LONGEST_SENT:
        return operation_id
    return _id(operation_id)


@functools.lru_cache(maxsize=1024)
def _id(operation_id: str) -> str:
    return _short(operation_id, "", _LONGEST_ID)


@functools.lru_cache(maxsize=1024)
def _method(path: str) -> str:
    return _short(path.lstrip("/"), "/", _LONGEST_METHOD)


def _short(text: str, safe: str, longest: int) -> str:
    # No encoded text begins with an asterisk, so none is taken for the digest of another.
    data = text.encode(errors="surrogatepass")
    encoded = quote(data, safe=safe)
    return encoded if len(encoded) <= longest else "*" + hashlib.sha256(data).hexdigest()
