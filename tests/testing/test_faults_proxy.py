"""The fault proxy: it passes everything on, and breaks exactly what it has to."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pamqp.frame
import pytest
from pamqp.commands import Basic
from pamqp.heartbeat import Heartbeat

from fusewire.testing.faults import Drop, FaultProxy
from fusewire.testing.faults._proxy import is_answer
from tests.support.ports import reserve_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GREETING = b"AMQP\x00\x00\x09\x01"
DELIVER = pamqp.frame.marshal(Basic.Deliver("tag", 1, redelivered=False, routing_key="q"), 1)
ACK = pamqp.frame.marshal(Basic.Ack(1), 1)
NACK = pamqp.frame.marshal(Basic.Nack(1), 1)
BEAT = pamqp.frame.marshal(Heartbeat(), 0)


class Ends:
    """A client and a server, with the proxy between them."""

    def __init__(self, proxy: FaultProxy, served: asyncio.Queue[asyncio.StreamReader]) -> None:
        self.proxy = proxy
        self._served = served
        self.servers: dict[asyncio.StreamReader, asyncio.StreamWriter] = {}
        self.clients: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self.clients.append(writer)
        return reader, writer

    async def accepted(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader = await asyncio.wait_for(self._served.get(), 10)
        return reader, self.servers[reader]


@asynccontextmanager
async def ends() -> AsyncIterator[Ends]:
    served: asyncio.Queue[asyncio.StreamReader] = asyncio.Queue()
    writers: dict[asyncio.StreamReader, asyncio.StreamWriter] = {}

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers[reader] = writer
        served.put_nowait(reader)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with FaultProxy("127.0.0.1", port) as proxy:
        both = Ends(proxy, served)
        both.servers = writers
        yield both
        for writer in (*both.clients, *writers.values()):
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_what_goes_in_comes_out_in_both_directions() -> None:
    async with ends() as both:
        reader, writer = await both.connect()
        there, back = await both.accepted()
        stream = GREETING + BEAT + DELIVER + ACK + NACK
        for byte in stream:  # in pieces, too
            writer.write(bytes([byte]))
            await writer.drain()
        assert await asyncio.wait_for(there.readexactly(len(stream)), 10) == stream
        back.write(ACK + DELIVER)
        assert await asyncio.wait_for(reader.readexactly(len(ACK + DELIVER)), 10) == ACK + DELIVER
        assert both.proxy.connections == both.proxy.accepted == 1
        assert both.proxy.dropped == 0
        writer.close()
        assert await asyncio.wait_for(there.read(), 10) == b""


@pytest.mark.parametrize("answer", [ACK, NACK])
@pytest.mark.parametrize("what", Drop)
async def test_frames_of_one_kind_are_dropped_in_their_direction_only(
    what: Drop, answer: bytes
) -> None:
    async with ends() as both:
        reader, writer = await both.connect()
        there, back = await both.accepted()
        both.proxy.drop(what)
        for sender in (writer, back):
            sender.write(BEAT + answer + DELIVER)
        spoiled, whole = (reader, there) if what is Drop.CONFIRMS else (there, reader)
        left, all_of_it = BEAT + DELIVER, BEAT + answer + DELIVER
        assert await asyncio.wait_for(spoiled.readexactly(len(left)), 10) == left
        assert await asyncio.wait_for(whole.readexactly(len(all_of_it)), 10) == all_of_it
        assert both.proxy.dropped == 1
        both.proxy.heal()
        for sender in (writer, back):
            sender.write(answer)
        assert await asyncio.wait_for(spoiled.readexactly(len(answer)), 10) == answer


async def test_a_cut_resets_both_ends_and_a_new_connection_is_served() -> None:
    async with ends() as both:
        reader, _ = await both.connect()
        there, _ = await both.accepted()
        both.proxy.cut()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 10)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(there.read(), 10)
        _, writer = await both.connect()
        there, _ = await both.accepted()
        writer.write(BEAT)
        assert await asyncio.wait_for(there.readexactly(len(BEAT)), 10) == BEAT


async def test_a_refusing_proxy_resets_new_connections_until_it_is_healed() -> None:
    async with ends() as both:
        both.proxy.refuse()
        reader, _ = await both.connect()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 10)
        both.proxy.heal()
        await both.connect()
        await both.accepted()


async def test_a_stalled_connection_stays_open_and_goes_on_when_healed() -> None:
    async with ends() as both:
        _, writer = await both.connect()
        there, _ = await both.accepted()
        both.proxy.stall()
        writer.write(BEAT)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(there.read(1), 0.1)
        both.proxy.heal()
        assert await asyncio.wait_for(there.readexactly(len(BEAT)), 10) == BEAT


async def test_a_stranded_connection_stays_open_and_a_new_one_is_served() -> None:
    async with ends() as both:
        reader, writer = await both.connect()
        server_reader, server_writer = await both.accepted()
        both.proxy.strand()
        both.proxy.heal()  # what is gone is gone
        writer.write(GREETING)
        server_writer.write(BEAT)
        _, new = await both.connect()
        new.write(GREETING)
        new_server, _ = await both.accepted()
        assert await asyncio.wait_for(new_server.readexactly(len(GREETING)), 10) == GREETING
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server_reader.read(1), 0.1)
        server_writer.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)


async def test_a_slow_connection_passes_all_on_later() -> None:
    async with ends() as both:
        _, writer = await both.connect()
        there, _ = await both.accepted()
        both.proxy.slow(0.3)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        writer.write(BEAT)
        assert await asyncio.wait_for(there.readexactly(len(BEAT)), 10) == BEAT
        assert loop.time() - begin >= 0.3


async def test_a_server_that_is_not_there_looks_like_a_reset() -> None:
    async with FaultProxy("127.0.0.1", reserve_port()) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await until(lambda: proxy.connections == 0)


async def test_a_proxy_has_no_port_before_it_is_entered() -> None:
    with pytest.raises(RuntimeError, match="enter the proxy first"):
        _ = FaultProxy("127.0.0.1", 1).port


@pytest.mark.parametrize("frame", [GREETING, BEAT, DELIVER, b""])
def test_other_frames_are_no_answers(frame: bytes) -> None:
    assert not is_answer(frame)
