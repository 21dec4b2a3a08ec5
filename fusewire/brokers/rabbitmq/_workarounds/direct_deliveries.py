"""Deliveries read from their frames, past pamqp and aiormq.

A delivery is three frames. pamqp (4.0.1) and aiormq (7.2.4) read them, put them into a queue, take
them out again and call the consumer in a task of its own: 51 µs of CPU for a parked message, with
what we make of it, of the 160 that a replay takes in all. Here all that takes 18 µs.

All other frames go to aiormq, and so do deliveries that nobody here has asked for.

Upstream: https://github.com/mosquito/aiormq/issues/37 (closed; one task a delivery is left of it).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

from aiormq.exceptions import InvalidFrameError
from pamqp import decode
from pamqp.commands import Basic
from pamqp.constants import FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from pamqp.header import ContentHeader

from fusewire.brokers.rabbitmq._workarounds.field_tables import read_table
from fusewire.brokers.rabbitmq._workarounds.unreadable import START, readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiormq.abc import DeliveredMessage

_DELIVER = struct.pack(">I", Basic.Deliver.index)
_TAG = struct.Struct(">QB")  # of a delivery, and whether it is redelivered
_SIZE = struct.Struct(">Q")  # of the body, in the last bytes before the properties' flags
_FLAGS = struct.Struct(">H")
_MORE_FLAGS = 1  # follow; in 0-9-1 none do


@dataclass(slots=True)
class Delivered:
    """A message as AMQP delivers it.

    Attributes:
        properties: its properties.
        body: its payload.
        exchange: the exchange that it was published to.
        routing_key: the routing key that it was published with.
        tag: what acknowledges it on its channel.
        redelivered: whether it was delivered before.
    """

    properties: Basic.Properties
    body: bytes
    exchange: str
    routing_key: str
    tag: int
    redelivered: bool

    @classmethod
    def by_aiormq(cls, message: DeliveredMessage) -> Self:
        """Return what aiormq has read."""
        return cls(
            message.header.properties,
            message.body,
            message.exchange or "",
            message.routing_key or "",
            message.delivery_tag or 0,
            bool(message.redelivered),
        )


class DirectConsumer:
    """Makes deliveries of the frames of one channel.

    Args:
        tag: the consumer's; ASCII, and less than 256 characters.
        take: called with each delivery; it must not raise.
    """

    def __init__(self, tag: str, take: Callable[[Delivered], None]) -> None:
        self._begin = _DELIVER + bytes([len(tag)]) + tag.encode()
        self._take = take
        self._method: bytes | None = None  # of a delivery of which more comes
        self._header: bytes | None = None
        self._body: list[bytes] = []
        self._missing = 0  # bytes of the body

    def takes(self, kind: int, payload: bytes) -> bool:
        """Take a frame of the channel if it belongs to a delivery to this consumer.

        Args:
            kind: the frame's type.
            payload: what is in it.

        Raises:
            InvalidFrameError: another frame comes in the middle of a delivery.
        """
        if self._method is None:
            if kind != FRAME_METHOD or not payload.startswith(self._begin):
                return False
            self._method = payload
            return True
        if self._header is None and kind == FRAME_HEADER:
            self._header = payload
            (self._missing,) = _SIZE.unpack_from(payload, START - _SIZE.size)
        elif self._header is not None and kind == FRAME_BODY:
            self._body.append(payload)
            self._missing -= len(payload)
        else:
            raise InvalidFrameError(f"a frame of type {kind} in the middle of a delivery")
        if self._missing <= 0:
            method, header, body = self._method, self._header, b"".join(self._body)
            self._method = self._header = None
            self._body.clear()
            self._take(self._delivered(method, header, body))
        return True

    def _delivered(self, method: bytes, header: bytes, body: bytes) -> Delivered:
        at = len(self._begin)
        tag, redelivered = _TAG.unpack_from(method, at)
        begin = at + _TAG.size + 1
        end = begin + method[begin - 1]
        return Delivered(
            properties_in(header),
            body,
            # RabbitMQ takes any bytes for a routing key. What cannot be read closes no connection.
            method[begin:end].decode(errors="backslashreplace"),
            method[end + 1 :].decode(errors="backslashreplace"),
            tag,
            bool(redelivered & 1),
        )


def properties_in(header: bytes) -> Basic.Properties:
    """Read the payload of a content header, as pamqp reads what is made readable of it."""
    properties = _at_once(header)
    if properties is not None:
        return properties
    read = ContentHeader()
    read.unmarshal(readable(header))
    return read.properties


def _at_once(header: bytes) -> Basic.Properties | None:
    """Read what is as it should be; return None for what needs a closer look."""
    (flags,) = _FLAGS.unpack_from(header, START)
    at = START + _FLAGS.size
    properties = Basic.Properties()
    try:
        for name, kind in _fields(flags):
            if kind == "shortstr":
                end = at + 1 + header[at]
                setattr(properties, name, header[at + 1 : end].decode())
            elif kind == "table":
                end = at + 4 + int.from_bytes(header[at : at + 4], "big")
                properties.headers = read_table(header, at + 4, end)
            else:  # a number of one byte, or a time
                size, value = decode.by_type(header[at:], kind)
                end = at + size
                setattr(properties, name, value)
            at = end
    except Exception:  # noqa: BLE001 - whatever comes of somebody's bytes
        return None
    return properties if at == len(header) and not flags & _MORE_FLAGS else None


@lru_cache(256)  # publishers have few combinations
def _fields(flags: int) -> tuple[tuple[str, str], ...]:
    """Return the names of the properties that `flags` announce, in their order, and their kinds."""
    return tuple(
        (name, Basic.Properties.amqp_type(name))
        for name in Basic.Properties.__slots__
        if flags & Basic.Properties.flags[name]
    )
