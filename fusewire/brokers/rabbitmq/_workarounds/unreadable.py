"""Messages whose properties pamqp cannot read, made readable, so that they can be dead-lettered.

RabbitMQ passes on what a publisher sent: a timestamp in microseconds, a correlation id that is not
UTF-8. pamqp (4.0.1) raises, aiormq (7.2.4) closes the connection, and RabbitMQ delivers the message
again, with all else that was in flight, again and again. The reader here stands between the socket
and aiormq. It changes the content header of such a message, and passes everything else on as it is.

A time is understood in any unit. Other properties that cannot be read are left out; the message
carries the whole content header in the header `UNREADABLE`, and their names in another one, from
which the codec makes :attr:`Message.unreadable`.

pamqp never sees a table of headers. It gets another, which has the whole content header as bytes
in its only value, and :func:`unwrap` reads the table there: once, and only of what is delivered.

Upstream: https://github.com/mosquito/aiormq/issues/186 (open),
https://github.com/gmr/pamqp/pull/35, https://github.com/gmr/pamqp/issues/32.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, cast

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp import decode, encode
from pamqp.commands import Basic, Connection
from pamqp.constants import FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD
from pamqp.header import ContentHeader

from fusewire.brokers.message import UNREADABLE
from fusewire.brokers.rabbitmq._workarounds.field_tables import read_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from yarl import URL

UNREADABLE_PROPERTIES = "fusewire-unreadable-properties"
"""The header that names the properties that cannot be read. It goes no further than the codec."""

_CLOSE = struct.pack(">HH", *divmod(Connection.Close.index, 2**16))
_HEAD = struct.Struct(">BHI")  # of a frame: its type, its channel and its length
_MOST_AHEAD = 2**16  # bytes
_FRAMES = frozenset({FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT})
_START = 12  # bytes before the properties' flags: AMQP's class, a weight and the body's size
_FLAGS = Basic.Properties.flags
_CONTENT_TYPE, _CONTENT_ENCODING = _FLAGS["content_type"], _FLAGS["content_encoding"]
_HEADERS = _FLAGS["headers"]
_CLOSER = _FLAGS["timestamp"] | 3  # of the second byte; its last two bits mean nothing in 0-9-1
_LARGEST_TIME = 2**63 - 1  # from there on it is rather a negative one than one in nanoseconds

_WRAPPED = "fusewire-content-header"
_ENTRY = bytes([len(_WRAPPED)]) + _WRAPPED.encode() + b"x"  # a value's name, and its kind: bytes
_LENGTHS = struct.Struct(f">I{len(_ENTRY)}sI")  # of a table with that value, up to the bytes


class LenientTransport(TransportFactory):
    """Connects as aiormq does, reads leniently, and keeps what RabbitMQ says when it hangs up.

    Attributes:
        refusal: why RabbitMQ closed the connection, in its words; None if it has not. While a
            connection is opened, aiormq says only that it expected something else.
    """

    refusal: str | None = None

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        return cast("asyncio.StreamReader", LenientReader(reader, self._refused)), writer

    def _refused(self, why: str) -> None:
        self.refusal = why


class LenientReader:
    """What aiormq uses of a stream, for a frame in three parts: type, rest of head, rest.

    It reads ahead, so that most frames are cut from what is here, without a wait.
    """

    def __init__(
        self, stream: asyncio.StreamReader, refused: Callable[[str], None] = lambda _why: None
    ) -> None:
        self._stream = stream
        self._refused = refused
        self._ahead = b""
        self._at = 0  # where the next frame begins there
        self._part = 0
        self._head = self._rest = b""

    def at_eof(self) -> bool:
        """Return whether nothing more comes."""
        return self._at == len(self._ahead) and self._stream.at_eof()

    async def read(self) -> bytes:
        """Read all that comes."""
        return self._cut(len(self._ahead) - self._at) + await self._stream.read()

    async def readexactly(self, size: int) -> bytes:
        """Read the next part of a frame."""
        if self._part == 0:
            if len(self._ahead) - self._at < _HEAD.size:
                await self._receive(_HEAD.size)
            kind, channel, length = _HEAD.unpack_from(self._ahead, self._at)
            # Another protocol has no frames: aiormq makes of it what it makes.
            rest = length + 1 if kind in _FRAMES else 0
            if len(self._ahead) - self._at < _HEAD.size + rest:
                await self._receive(_HEAD.size + rest)
            self._head, self._rest = self._cut(_HEAD.size), self._cut(rest)
            if kind == FRAME_HEADER:
                payload = wrapped(self._rest[:-1])
                self._head = _HEAD.pack(kind, channel, len(payload))
                self._rest = payload + self._rest[-1:]
            elif kind == FRAME_METHOD and not channel and self._rest.startswith(_CLOSE):
                self._refused(_reply_text(self._rest))
            self._part = 1
            return self._head[:size]
        if self._part == 1:
            self._part = 2
            return self._head[-size:]
        self._part = 0
        if not self._rest:
            await self._receive(size)
            return self._cut(size)
        return self._rest

    def _cut(self, size: int) -> bytes:
        begin = self._at
        self._at = begin + size
        return self._ahead[begin : self._at]

    async def _receive(self, size: int) -> None:
        """Wait until `size` bytes are here, of those that are not read."""
        pieces = [self._ahead[self._at :]]
        missing = size - len(pieces[0])
        while missing > 0:
            piece = await self._stream.read(_MOST_AHEAD)
            if not piece:
                raise asyncio.IncompleteReadError(b"".join(pieces), size)
            pieces.append(piece)
            missing -= len(piece)
        self._ahead, self._at = b"".join(pieces), 0


def _reply_text(close: bytes) -> str:
    """Return the text of a Connection.Close, which stands behind a code of two bytes."""
    size = close[len(_CLOSE) + 2]
    return close[len(_CLOSE) + 3 :][:size].decode(errors="replace")


def wrapped(payload: bytes) -> bytes:
    """Return the payload of a content header so that pamqp can read it, its table wrapped up."""
    table = _table_at_a_glance(payload)
    if table is None:
        payload = readable(payload)
        table = _table_in(payload, _START)
    begin, end = table
    if begin == end:
        return payload
    whole = payload[_START:]
    entry = _LENGTHS.pack(len(_ENTRY) + 4 + len(whole), _ENTRY, len(whole))
    return payload[:begin] + entry + whole + payload[end:]


def unwrapped(headers: dict[str, Any]) -> dict[str, Any]:
    """Return a message's headers, of those that it has once pamqp has read it."""
    whole = headers.get(_WRAPPED)
    if not isinstance(whole, bytearray):
        return headers
    try:
        begin, end = _table_in(whole, 0)
        return read_table(bytes(whole), begin + 4, end)
    except Exception:  # noqa: BLE001 - whatever comes of somebody's bytes
        header = ContentHeader()
        header.unmarshal(_repaired(bytes(_START) + whole))
        return header.properties.headers or {}


def _table_in(data: bytes | bytearray, flags_at: int) -> tuple[int, int]:
    """Return where the table begins, with its length, and where it ends; the same if it has none.

    Args:
        data: the payload of a content header, or the rest of one.
        flags_at: where its flags are.
    """
    flags = data[flags_at] << 8 | data[flags_at + 1]
    at = flags_at + 2
    if flags & _CONTENT_TYPE:
        at += 1 + data[at]
    if flags & _CONTENT_ENCODING:
        at += 1 + data[at]
    return at, at + 4 + int.from_bytes(data[at : at + 4], "big") if flags & _HEADERS else at


def _table_at_a_glance(payload: bytes) -> tuple[int, int] | None:
    """Return where the table is, if pamqp can read all else; None means a closer look."""
    try:
        begin, end = _table_in(payload, _START)
    except IndexError:
        return None
    plain = (
        not payload[_START + 1] & _CLOSER
        and payload[_START + 2 : begin].isascii()
        and payload[end:].isascii()
        and end <= len(payload)
    )
    return (begin, end) if plain else None


def readable(payload: bytes) -> bytes:
    """Return the payload of a content header so that pamqp can read it; mostly as it is."""
    try:
        ContentHeader().unmarshal(payload)
    except Exception:  # noqa: BLE001 - whatever pamqp makes of somebody's bytes
        return _repaired(payload)
    return payload


def _repaired(payload: bytes) -> bytes:
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
        notes = encode.field_table(
            {
                UNREADABLE_PROPERTIES: ", ".join(unreadable),
                UNREADABLE: bytearray(payload[_START:]),
            }
        )
        table = fields.get("headers", bytes(4))[4:] + notes[4:]
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
