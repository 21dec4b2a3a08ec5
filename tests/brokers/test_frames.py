"""What the reader of frames passes on to aiormq, in whatever pieces it comes."""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from fusewire.brokers.rabbitmq._workarounds.frame_reader import LenientReader
from fusewire.brokers.rabbitmq._workarounds.unreadable import readable
from tests.support.content_headers import CONTENT_TYPE, HEADERS, TIMESTAMP, content_header

MICROSECONDS = 1_700_000_000_123_456
NOW = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


async def passed_on(sent: bytes, piece: int = 2**20) -> bytes:
    """Return what aiormq gets of these frames, which come in pieces of so many bytes."""
    stream = asyncio.StreamReader()

    async def feed() -> None:
        for at in range(0, len(sent), piece):
            stream.feed_data(sent[at : at + piece])
            if at + piece >= len(sent):
                stream.feed_eof()
            await asyncio.sleep(0)

    async def read() -> bytes:
        reader, got = LenientReader(stream), b""
        while not reader.at_eof():
            got += await reader.readexactly(1) + (head := await reader.readexactly(6))
            got += await reader.readexactly(int.from_bytes(head[2:], "big") + 1)
            await asyncio.sleep(0)  # so that what comes in pieces is ahead of what is read
        return got

    got, _ = await asyncio.gather(read(), feed())
    return got


async def test_what_can_be_read_is_read_as_it_is() -> None:
    header = ContentHeader(0, 4, Basic.Properties(message_id="m", timestamp=NOW))
    assert readable(header.marshal()) == header.marshal()
    sent = frame.marshal(Basic.Ack(1), 1) + frame.marshal(header, 1) + b"\x08\0\0\0\0\0\0\xce"

    assert await passed_on(sent) == sent


BODY = frame.marshal(ContentBody(b"b" * 200_000), 1)


@pytest.mark.parametrize("piece", [1, 2, 6, 7, 8, 9, 21, 64])
async def test_frames_are_passed_on_in_whatever_pieces_they_come(piece: int) -> None:
    sent = frame.marshal(Basic.Ack(1), 1) * 3 + b"\x08\0\0\0\0\0\0\xce" * 2

    assert await passed_on(sent, piece) == sent


@pytest.mark.parametrize("piece", [2**12, 2**16, 2**18])
async def test_a_large_frame_is_passed_on_whole(piece: int) -> None:
    sent = frame.marshal(Basic.Ack(1), 1) + BODY + BODY + frame.marshal(Basic.Ack(2), 1)

    assert await passed_on(sent, piece) == sent


@pytest.mark.parametrize("cut", [1, 6, 7, 8, 20])
async def test_a_frame_that_ends_with_its_connection_is_said_to_be_incomplete(cut: int) -> None:
    whole = frame.marshal(Basic.Ack(1), 1)
    stream = asyncio.StreamReader()
    stream.feed_data(whole + whole[:cut])
    stream.feed_eof()
    reader = LenientReader(stream)
    for size in (1, 6, len(whole) - 7):
        await reader.readexactly(size)

    with pytest.raises(asyncio.IncompleteReadError) as raised:
        await reader.readexactly(1)

    assert raised.value.partial == whole[:cut]


async def test_another_protocol_is_passed_on_as_it_is() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"AMQP\0\0\x09\x01 and more")
    stream.feed_eof()
    reader = LenientReader(stream)

    assert await reader.readexactly(1) + await reader.readexactly(6) == b"AMQP\0\0\x09"
    assert await reader.readexactly(5) + await reader.read() == b"\x01 and more"


@given(
    st.fixed_dictionaries({name: st.binary(max_size=9) for name in ("type", "name", "text", "id")}),
    st.none() | st.integers(0, 2**64 - 1),
    st.none() | st.integers(0, 2**64 - 1),
)
def test_whatever_bytes_a_text_or_a_time_has_pamqp_reads_what_is_passed_on(
    texts: dict[str, bytes], property_time: int | None, header_time: int | None
) -> None:
    short = {name: bytes([len(text)]) + text for name, text in texts.items()}
    table = short["name"] + b"S" + struct.pack(">I", len(texts["text"])) + texts["text"]
    table += b"\x01ll" + struct.pack(">q", MICROSECONDS)
    if header_time is not None:
        table += b"\x01tT" + struct.pack(">Q", header_time)
    fields = [short["type"], struct.pack(">I", len(table)) + table, short["id"]]
    flags = CONTENT_TYPE | HEADERS | Basic.Properties.flags["message_id"]
    if property_time is not None:
        flags |= TIMESTAMP
        fields.append(struct.pack(">Q", property_time))
    payload = content_header(flags, *fields)
    sent = struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce"

    _, channel, header = frame.unmarshal(asyncio.run(passed_on(sent)))

    assert isinstance(header, ContentHeader)
    assert (channel, header.body_size) == (1, 4)
