"""Messages whose properties pamqp cannot read, made readable, so that they can be dead-lettered.

RabbitMQ passes on what a publisher sent: a timestamp in microseconds, a correlation id that is not
UTF-8. pamqp (4.0.1) raises, aiormq (7.2.4) closes the connection, and RabbitMQ delivers the message
again, with all else that was in flight, again and again. So the content header of such a message is
changed before pamqp reads it.

A time is understood in any unit. Other properties that cannot be read are left out; the message
carries the whole content header in the header `UNREADABLE`, and their names in another one, from
which the codec makes :attr:`Message.unreadable`.

Upstream: https://github.com/mosquito/aiormq/issues/186 (open),
https://github.com/gmr/pamqp/pull/35, https://github.com/gmr/pamqp/issues/32.
"""

from __future__ import annotations

import struct

from pamqp import decode, encode
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from fusewire.brokers.message import UNREADABLE

UNREADABLE_PROPERTIES = "fusewire-unreadable-properties"
"""The header that names the properties that cannot be read. It goes no further than the codec."""

START = 12
"""Bytes before the properties' flags: AMQP's class, a weight and the body's size."""

_LARGEST_TIME = 2**63 - 1  # from there on it is rather a negative one than one in nanoseconds


def readable(payload: bytes) -> bytes:
    """Return the payload of a content header so that pamqp can read it; mostly as it is."""
    try:
        ContentHeader().unmarshal(payload)
    except Exception:  # noqa: BLE001 - whatever pamqp makes of somebody's bytes
        return _repaired(payload)
    return payload


def _repaired(payload: bytes) -> bytes:
    (flags,) = struct.unpack_from(">H", payload, START)
    rest = payload[START + 2 :]
    fields: dict[str, bytes] = {}
    unreadable = []
    for name in Basic.Properties.__slots__:
        if flags & Basic.Properties.flags[name]:
            kind = Basic.Properties.amqp_type(name)
            size = _size(rest, kind)
            field, rest = rest[:size], rest[size:]
            if (read := _field(field, kind)) is None:
                unreadable.append(name)
                flags &= ~Basic.Properties.flags[name]
            else:
                fields[name] = read
    if unreadable:
        notes = encode.field_table(
            {
                UNREADABLE_PROPERTIES: ", ".join(unreadable),
                UNREADABLE: bytearray(payload[START:]),
            }
        )
        table = fields.get("headers", bytes(4))[4:] + notes[4:]
        fields["headers"] = struct.pack(">I", len(table)) + table
        flags |= Basic.Properties.flags["headers"]
    parts = (fields[name] for name in Basic.Properties.__slots__ if name in fields)
    return payload[:START] + struct.pack(">H", flags) + b"".join(parts)


def _size(data: bytes, kind: str) -> int:
    if kind == "shortstr":
        return 1 + data[0]
    if kind == "table":
        return 4 + int.from_bytes(data[:4], "big")
    return {"octet": 1, "timestamp": 8}[kind]


def _field(field: bytes, kind: str) -> bytes | None:
    """Return a field that can be read; None where it cannot be made so."""
    time = int.from_bytes(field, "big") if kind == "timestamp" else 0
    while True:
        try:
            decode.by_type(field, kind)
        except Exception:  # noqa: BLE001 - see above
            if not 0 < time <= _LARGEST_TIME:
                return None
            # pamqp takes what is too large for seconds as milliseconds. So these are micro- or
            # nanoseconds.
            time //= 1000
            field = struct.pack(">Q", time)
        else:
            return field
