"""Frames that wait for room: none is dropped, and none comes out of order."""

from __future__ import annotations

import asyncio

import pytest
from aiormq.exceptions import ChannelInvalidStateError

from fusewire.brokers.rabbitmq._workarounds.close_ok import ChannelFrames, ConnectionFrames
from tests.support.waiting import until


@pytest.fixture
def written() -> asyncio.Queue[object]:
    """Provide what is to be written, with room for one frame, which is taken."""
    queue: asyncio.Queue[object] = asyncio.Queue(maxsize=1)
    queue.put_nowait("first")
    return queue


async def turns() -> None:
    """Let what was begun come as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_answer_waits_for_room_behind_what_waits_already(
    written: asyncio.Queue[object],
) -> None:
    channel = ChannelFrames(ConnectionFrames(written, timeout=5))  # type: ignore[arg-type] # as a queue
    acknowledging = asyncio.ensure_future(channel.put("acknowledged"))
    await turns()
    assert written.get_nowait() == "first"  # there is room, for whom it was made
    channel.put_nowait("answer")
    assert [await written.get(), await written.get()] == ["acknowledged", "answer"]
    await acknowledging


async def test_the_number_of_a_channel_is_not_used_again_before_its_answer(
    written: asyncio.Queue[object],
) -> None:
    connection = ConnectionFrames(written, timeout=5)
    ChannelFrames(connection).put_nowait("answer")  # type: ignore[arg-type] # as a queue
    await turns()
    opening = asyncio.ensure_future(connection.put("opened"))
    assert written.get_nowait() == "first"
    assert [await written.get(), await written.get()] == ["answer", "opened"]
    await opening


async def test_nothing_of_a_channel_comes_after_its_answer() -> None:
    written: asyncio.Queue[object] = asyncio.Queue()
    connection = ConnectionFrames(written, timeout=5)
    channel = ChannelFrames(connection)  # type: ignore[arg-type] # as a queue
    channel.put_nowait("answer")
    with pytest.raises(ChannelInvalidStateError):
        await channel.put("acknowledged")
    await ChannelFrames(connection).put("of another")  # type: ignore[arg-type] # as a queue
    assert [await written.get() for _ in range(2)] == ["answer", "of another"]


async def test_an_answer_that_a_dead_connection_never_takes_keeps_nobody(
    written: asyncio.Queue[object],
) -> None:
    connection = ConnectionFrames(written, timeout=0.01)
    before = asyncio.all_tasks()
    connection.put_nowait("answer")
    assert asyncio.all_tasks() > before
    await until(lambda: asyncio.all_tasks() <= before)
    assert written.qsize() == 1
