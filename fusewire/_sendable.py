"""What gRPC can send beside a message: metadata, and timeouts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_TIMEOUT: Final = 7e9
"""Seconds that a timeout may have: from here on its nanoseconds since 1970 overflow 64 bits."""

_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")
_BYTES_VALUE = re.compile(rb"[ -~]*")


def is_valid_metadata(metadata: Iterable[tuple[str | bytes, str | bytes]] | None) -> bool:
    """Return whether grpcio will send `metadata`.

    On asyncio a call whose metadata cannot be sent never ends: it is never done, and no callback
    is called. The rules are those of ``validate_metadata.cc`` and of the Cython layer.
    """
    try:
        for key_or_bytes, value in metadata or ():
            # grpcio 1.71 adds the pair of a call's compression with a key in bytes.
            key = key_or_bytes.decode() if isinstance(key_or_bytes, bytes) else key_or_bytes
            if not _KEY.fullmatch(key):
                return False
            if isinstance(value, bytes):
                if not key.endswith("-bin") and not _BYTES_VALUE.fullmatch(value):
                    return False
            elif key.endswith("-bin") or not _VALUE.fullmatch(value):
                return False
    except (TypeError, ValueError):
        return False
    return True
