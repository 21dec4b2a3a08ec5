"""Fingerprints: whether two calls with one key make the same request.

A fingerprint is the SHA-256 of the request's bytes. A protobuf message is serialized
deterministically, because a map field has another order in every process. A later release may store
more than one digest, one behind the other: calls are the same if any of their digests is.
"""

from __future__ import annotations

import hashlib
from typing import Any

from google.protobuf.message import Message

_SIZE = hashlib.sha256().digest_size


class UndigestedError(TypeError):
    """No bytes can be made of a request, so it cannot be compared with another."""


def fingerprint_of(request: Any) -> bytes:
    """Return the fingerprint of a request.

    Args:
        request: a protobuf message, or the bytes of a method without a deserializer.

    Raises:
        UndigestedError: it is neither.
    """
    if isinstance(request, Message):
        data = request.SerializePartialToString(deterministic=True)
    elif isinstance(request, bytes):
        data = request
    else:
        raise UndigestedError(
            f"a request must be a protobuf message or bytes, got {type(request).__qualname__}"
        )
    return hashlib.sha256(data).digest()


def same_request(stored: bytes, asked: bytes) -> bool:
    """Return whether two fingerprints have a digest in common."""
    return not _digests(stored).isdisjoint(_digests(asked))


def _digests(fingerprint: bytes) -> frozenset[bytes]:
    return frozenset(
        fingerprint[at : at + _SIZE] for at in range(0, len(fingerprint) - _SIZE + 1, _SIZE)
    )
