"""Content headers of AMQP with any bytes as properties."""

from __future__ import annotations

import struct

from pamqp.commands import Basic


def content_header(flags: int, *fields: bytes, size: int = 4) -> bytes:
    """Return the payload of a content header with any bytes as properties."""
    return struct.pack(">HHQH", Basic.frame_id, 0, size, flags) + b"".join(fields)


TIMESTAMP, CORRELATION_ID, HEADERS, CONTENT_TYPE = (
    Basic.Properties.flags[name]
    for name in ("timestamp", "correlation_id", "headers", "content_type")
)
