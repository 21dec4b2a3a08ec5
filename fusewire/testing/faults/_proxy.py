"""A TCP proxy before a RabbitMQ that breaks its traffic, by connection or by frame.

It listens on the loopback interface. Whole connections can be cut, stalled (half-open: the sockets
stay, nothing comes through) or slowed down. Single AMQP frames can be dropped: the broker's
confirms of publishes, or the client's acknowledgements of deliveries. TLS cannot be looked into.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import Enum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 65536
_NO_LINGER = struct.pack("ii", 1, 0)
_HEAD = 7  # bytes of a frame before its payload: type, channel, size
_METHOD = 1  # the frame type of a method
_PROTOCOL = b"AMQP"  # what a client sends first, and what is no frame
_BASIC, _ACK, _NACK = 60, 80, 120  # the same numbers in both directions, with other meanings


class Drop(Enum):
    """Frames that can be dropped."""

    CONFIRMS = "broker to client"
    """The broker's Basic.Ack and Basic.Nack: its answers to publishes."""
    ACKNOWLEDGEMENTS = "client to broker"
    """The client's Basic.Ack and Basic.Nack: its answers to deliveries."""


class FaultProxy:
    """Stands between a client and a RabbitMQ. Enter it; then connect to :attr:`port`.

    Args:
        host: where the RabbitMQ is.
        port: its AMQP port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._stranded: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._latency = 0.0
        self._dropping: set[Drop] = set()
        self.dropped = 0
        """Frames dropped so far."""
        self.accepted = 0
        """Connections accepted so far."""

    @property
    def port(self) -> int:
        """The port on the loopback interface that it listens on."""
        if self._server is None:
            raise RuntimeError("enter the proxy first: async with FaultProxy(…) as proxy")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """Reset every connection, even in the middle of a frame. New ones are served."""
        for writer in tuple(self._writers):
            _reset(writer)

    def refuse(self) -> None:
        """Cut, and reset every new connection too, until :meth:`heal`."""
        self._refusing = True
        self.cut()

    def stall(self) -> None:
        """Hold back all data in both directions until :meth:`heal`. Connections stay open."""
        self._flowing.clear()

    def strand(self) -> None:
        """Let nothing more through on the connections that there are, not even that one has ended.

        So it is when a firewall has forgotten them, or a host is gone. New ones are served.
        """
        self._stranded |= self._writers

    def slow(self, seconds: float) -> None:
        """Delay every piece of data by so many seconds."""
        self._latency = seconds

    def drop(self, what: Drop) -> None:
        """Drop every frame of a kind until :meth:`heal`."""
        self._dropping.add(what)

    def heal(self) -> None:
        """End all faults. Stalled data goes on; dropped or stranded data is gone."""
        self._refusing = False
        self._latency = 0.0
        self._dropping.clear()
        self._flowing.set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cut all connections and listen no more."""
        if self._server is not None:
            self._server.close()
            self.heal()
            self.refuse()
            # Not cancelled: asyncio's streams report a cancelled one of these as an error.
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        if self._refusing:
            _reset(writer)
            return
        try:
            there, back = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, back}
        ways = [
            asyncio.create_task(self._carry(reader, back, Drop.ACKNOWLEDGEMENTS)),
            asyncio.create_task(self._carry(there, writer, Drop.CONFIRMS)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if writer in self._stranded:  # neither side learns that the other has ended
                await asyncio.wait(ways)
        finally:
            # Both sides of a connection end together, as they do without a proxy.
            self._writers -= {writer, back}
            self._stranded -= {writer, back}
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, back):
                end.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, of_this_way: Drop
    ) -> None:
        frames = _Frames()
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if writer in self._stranded:
                    continue
                await self._flowing.wait()
                if self._latency:
                    await asyncio.sleep(self._latency)
                for frame in frames.split(data):
                    if of_this_way in self._dropping and is_answer(frame):
                        self.dropped += 1
                    else:
                        writer.write(frame)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection as a crash does: without lingering, the peer gets RST and not FIN."""
    stream = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


class _Frames:
    """Splits a stream of AMQP into frames, forwarded whole, so that one can be dropped."""

    def __init__(self) -> None:
        self._rest = b""

    def split(self, data: bytes) -> list[bytes]:
        """Take the received data, and return the frames that are complete."""
        rest = self._rest + data
        frames = []
        begin = 0
        while len(rest) - begin > _HEAD:
            if rest.startswith(_PROTOCOL, begin):
                end = begin + len(_PROTOCOL) + 4
            else:
                (payload,) = struct.unpack_from(">L", rest, begin + 3)
                end = begin + _HEAD + payload + 1
            if len(rest) < end:
                break
            frames.append(rest[begin:end])
            begin = end
        self._rest = rest[begin:]
        return frames


def is_answer(frame: bytes) -> bool:
    """Return whether a frame is a Basic.Ack or a Basic.Nack."""
    if len(frame) < _HEAD + 4 or frame[0] != _METHOD:
        return False
    kind, method = struct.unpack_from(">HH", frame, _HEAD)
    return kind == _BASIC and method in {_ACK, _NACK}
