"""Messages whose properties pamqp cannot read, made readable, so that they can be put aside.

RabbitMQ passes on what a publisher sent: a timestamp in microseconds, a correlation id that is no
UTF-8. pamqp (4.0.1) raises at those, aiormq (7.2.4) closes the connection, and RabbitMQ delivers
the message again, with all else that was in hand, again and again. What stands here between the
socket and aiormq changes such a message's content header, and passes on everything else as it is.

A time is understood in any unit. Of other properties that cannot be read the message comes without,
with the whole content header in :data:`UNREADABLE`, and with a format that no parking reads: it is
put aside as malformed.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, cast

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp import decode, encode
from pamqp.commands import Basic
from pamqp.constants import FRAME_HEADER
from pamqp.header import ContentHeader

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from yarl import URL

UNREADABLE = "fusewire-unreadable"
"""The header that carries what a message had instead, where its properties cannot be read."""

FORMAT = "fusewire-format"
"""The header with the format of parking's record; one that it does not know, it puts aside."""

_START = 12  # bytes before the properties' flags: AMQP's class, a weight and the body's size
_LARGEST_TIME = 2**63 - 1  # from there on it is rather a negative one than one in nanoseconds


class LenientTransport(TransportFactory):
    """Connects as aiormq does, and reads leniently."""

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        return cast("asyncio.StreamReader", LenientReader(reader)), writer


class LenientReader:
    """What aiormq uses of a stream: for each frame its type, the rest of its head, and its rest."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._next: Callable[[int], Awaitable[bytes]] = self._type

    def at_eof(self) -> bool:
        """Tell whether nothing more comes."""
        return self._stream.at_eof()

    async def read(self) -> bytes:
        """Read all that comes."""
        return await self._stream.read()

    async def readexactly(self, size: int) -> bytes:
        """Read the next part of a frame."""
        return await self._next(size)

    async def _type(self, size: int) -> bytes:
        got = await self._stream.readexactly(size)
        self._next = self._head_to_mend if got[0] == FRAME_HEADER else self._head
        return got

    async def _head(self, size: int) -> bytes:
        got = await self._stream.readexactly(size)
        self._next = self._rest
        return got

    async def _rest(self, size: int) -> bytes:
        self._next = self._type
        return await self._stream.readexactly(size)

    async def _head_to_mend(self, size: int) -> bytes:
        head = await self._stream.readexactly(size)
        channel, length = struct.unpack(">HI", head)
        rest = await self._stream.readexactly(length + 1)
        payload = readable(rest[:-1])

        async def mended(_: int) -> bytes:
            self._next = self._type
            return payload + rest[-1:]

        self._next = mended
        return struct.pack(">HI", channel, len(payload))


def readable(payload: bytes) -> bytes:
    """Return the payload of a content header so that pamqp can read it; mostly as it is."""
    try:
        ContentHeader().unmarshal(payload)
    except Exception:  # noqa: BLE001 - whatever pamqp makes of somebody's bytes
        return _mended(payload)
    return payload


def _mended(payload: bytes) -> bytes:
    (flags,) = struct.unpack_from(">H", payload, _START)
    rest = payload[_START + 2 :]
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
        told = encode.field_table(
            {
                FORMAT: f"unreadable ({', '.join(unreadable)})",
                UNREADABLE: bytearray(payload[_START:]),
            }
        )
        table = fields.get("headers", bytes(4))[4:] + told[4:]
        fields["headers"] = struct.pack(">I", len(table)) + table
        flags |= Basic.Properties.flags["headers"]
    parts = (fields[name] for name in Basic.Properties.__slots__ if name in fields)
    return payload[:_START] + struct.pack(">H", flags) + b"".join(parts)


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
