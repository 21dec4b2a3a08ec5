"""A proxy that answers each gRPC call with an HTTP status of its own, and never asks a server."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Self

_PREFACE = 24  # bytes with which a client begins
_HEADERS, _SETTINGS, _PING = 1, 4, 6  # kinds of frames
_ACK, _END = 1, 5  # flags: an acknowledgement; the end of the headers and of the stream
_STATUS = b"\x08\x03"  # HPACK: the name of the eighth entry, and a value of three bytes


class RefusingProxy:
    """Speaks as much HTTP/2 as it takes to refuse.

    Args:
        status: the HTTP status to answer with.
    """

    def __init__(self, status: int) -> None:
        self._answer = _STATUS + str(status).encode()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self.target = f"127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def _accept(self) -> None:
        serving = []
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # closed
                break
            self._open.append(connection)
            serving.append(threading.Thread(target=self._serve, args=(connection,)))
            serving[-1].start()
        for thread in serving:
            thread.join(10)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as received, contextlib.suppress(OSError):
            received.read(_PREFACE)
            connection.sendall(_frame(_SETTINGS, 0, 0))
            while head := received.read(9):
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                payload = received.read(int.from_bytes(head[:3], "big"))
                if kind in {_SETTINGS, _PING} and not flags & _ACK:
                    answer = payload if kind == _PING else b""
                    connection.sendall(_frame(kind, _ACK, 0, answer))
                elif kind == _HEADERS:
                    connection.sendall(_frame(_HEADERS, _END, stream, self._answer))


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
