"""The reader that stands between the socket and aiormq.

It makes content headers readable (:mod:`~fusewire.brokers.rabbitmq._workarounds.unreadable`), and
hands deliveries to those who have asked for them, past aiormq
(:mod:`~fusewire.brokers.rabbitmq._workarounds.direct_deliveries`). All else goes on as it is.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import TYPE_CHECKING, Any, cast

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp.commands import Channel, Connection
from pamqp.constants import (
    FRAME_BODY,
    FRAME_END_CHAR,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
)
from pamqp.heartbeat import Heartbeat

from fusewire.brokers.rabbitmq._workarounds.direct_deliveries import DirectConsumer
from fusewire.brokers.rabbitmq._workarounds.unreadable import readable

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiormq.abc
    from yarl import URL

    from fusewire.brokers.rabbitmq._workarounds.direct_deliveries import Delivered

_CLOSE = struct.pack(">I", Connection.Close.index)
_CHANNEL_ENDS = tuple(struct.pack(">I", end.index) for end in (Channel.Close, Channel.CloseOk))
_HEAD = struct.Struct(">BHI")  # of a frame: its type, its channel and its length
_MOST_AHEAD = 2**16  # bytes
_HEARTBEAT = Heartbeat().marshal()
_FRAMES = frozenset({FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT})

_SIGN_OF_LIFE = 0.5
"""Seconds without a frame for aiormq after which a delivery makes one.

aiormq gives a connection up from which no frame comes, and RabbitMQ sends no heartbeats while it
sends deliveries. The least time after which it does is six seconds.
"""


class LenientTransport(TransportFactory):
    """Connects as aiormq does, reads leniently, and keeps what RabbitMQ says when it hangs up.

    Attributes:
        refusal: why RabbitMQ closed the connection, in its words; None if it has not. While a
            connection is opened, aiormq says only that it expected something else.
        consumers: by their channels, those that take deliveries past aiormq.
    """

    refusal: str | None = None

    def __init__(self) -> None:
        self.consumers: dict[int, DirectConsumer] = {}

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        lenient = LenientReader(reader, self._refused, self.consumers)
        return cast("asyncio.StreamReader", lenient), writer

    def _refused(self, why: str) -> None:
        self.refusal = why


def take_directly(
    channel: aiormq.abc.AbstractChannel, tag: str, take: Callable[[Delivered], None]
) -> None:
    """Have `take` called with what is delivered to the consumer `tag` of `channel`, past aiormq.

    Until the channel ends. If a later aiormq keeps its transport elsewhere, all goes to aiormq.

    Args:
        channel: the channel to consume on, which serves no other consumer.
        tag: the consumer's tag, of ASCII characters.
        take: called with each delivery as it arrives; it must not raise.
    """
    transport = getattr(channel.connection, "_transport_factory", None)
    if isinstance(transport, LenientTransport):
        transport.consumers[channel.number] = DirectConsumer(tag, take)


class LenientReader:
    """What aiormq uses of a stream, for a frame in three parts: type, rest of head, rest.

    It reads ahead, so that most frames are cut from what is here, without a wait.

    Args:
        stream: what comes from the socket.
        refused: called with why RabbitMQ closes the connection.
        consumers: by their channels, those that take deliveries; each until its channel ends.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        stream: asyncio.StreamReader,
        refused: Callable[[str], None] = lambda _why: None,
        consumers: dict[int, DirectConsumer] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._refused = refused
        self._consumers = {} if consumers is None else consumers
        self._clock = clock
        self._passed_at = clock()  # when aiormq got a frame
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
            await self._read_frame()
            self._passed_at = self._clock()
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

    async def _read_frame(self) -> None:
        """Read up to a frame that is for aiormq."""
        while True:
            if len(self._ahead) - self._at < _HEAD.size:
                await self._receive(_HEAD.size)
            kind, channel, length = _HEAD.unpack_from(self._ahead, self._at)
            # Another protocol has no frames: aiormq makes of it what it makes.
            rest = length + 1 if kind in _FRAMES else 0
            if len(self._ahead) - self._at < _HEAD.size + rest:
                await self._receive(_HEAD.size + rest)
            self._head, self._rest = self._cut(_HEAD.size), self._cut(rest)
            if not self._is_taken(kind, channel):
                break
            if self._clock() - self._passed_at >= _SIGN_OF_LIFE:
                self._head, self._rest = _HEARTBEAT[: _HEAD.size], _HEARTBEAT[_HEAD.size :]
                return
        if kind == FRAME_HEADER:
            payload = readable(self._rest[:-1])
            self._head = _HEAD.pack(kind, channel, len(payload))
            self._rest = payload + self._rest[-1:]
        elif kind == FRAME_METHOD and not channel and self._rest.startswith(_CLOSE):
            self._refused(_reply_text(self._rest))

    def _is_taken(self, kind: int, channel: int) -> bool:
        """Return whether the frame belongs to a delivery, which it is made part of then."""
        consumer = self._consumers.get(channel)
        # A frame that does not end as one is aiormq's, which gives the connection up.
        if consumer is None or self._rest[-1:] != FRAME_END_CHAR:
            return False
        if consumer.takes(kind, self._rest[:-1]):
            return True
        if kind == FRAME_METHOD and self._rest.startswith(_CHANNEL_ENDS):
            del self._consumers[channel]  # the next channel of the number is another
        return False

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
