"""The answer that RabbitMQ waits for after it has closed a channel, and that aiormq may not send.

aiormq (7.2.4) puts its Channel.CloseOk into the connection's queue of frames to write. The queue
holds ten, and ``Channel._on_close_frame`` drops the answer if it is full (it suppresses
``QueueFull``). Without the answer RabbitMQ keeps what is unacknowledged on the channel until the
connection ends, and delivers it to no other consumer.

The objects here stand in front of that queue and keep the answer until there is room. They keep the
order as well, which a full queue does not: no frame of a channel may follow its answer, and its
number may not be used again before, or RabbitMQ closes the connection.

Upstream: not reported, as far as we know. Other clients had it:
https://github.com/postwait/node-amqp/pull/137.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from aiormq.exceptions import ChannelInvalidStateError

from fusewire.brokers.rabbitmq._workarounds.cancellation import spawn, within

if TYPE_CHECKING:
    import aiormq.abc


def write_in_order(connection: aiormq.abc.AbstractConnection, timeout: float) -> None:
    """Have the frames of all channels that are opened from now on written in order.

    Args:
        connection: the connection.
        timeout: seconds for which an answer may wait; the connection is dead then.
    """
    connection.write_queue = ConnectionFrames(connection.write_queue, timeout)  # type: ignore[assignment]  # what aiormq uses of a queue


def end_with_the_answer(channel: aiormq.abc.AbstractChannel) -> None:
    """Have nothing of `channel` written after the answer to its closing."""
    channel.write_queue = ChannelFrames(channel.connection.write_queue)  # type: ignore[attr-defined]  # not in the abstract class


class ConnectionFrames:
    """The frames of a connection, in the order in which they are put."""

    def __init__(self, frames: asyncio.Queue[object], timeout: float) -> None:
        self._frames = frames
        self._timeout = timeout
        self._turns = asyncio.Lock()
        self._waiting = 0

    async def put(self, frame: object) -> None:
        """Write a frame when there is room."""
        self._waiting += 1
        try:
            async with self._turns:
                await self._frames.put(frame)
        finally:
            self._waiting -= 1

    def put_nowait(self, answer: object) -> None:
        """Write an answer when there is room; aiormq writes nothing else in this way."""
        if self._waiting or self._frames.full():
            spawn(within(self._timeout, partial(self.put, answer)))
        else:
            self._frames.put_nowait(answer)


class ChannelFrames:
    """The frames of one channel, up to the answer to its closing."""

    def __init__(self, frames: asyncio.Queue[object]) -> None:
        self._frames = frames
        self._answered = False

    async def put(self, frame: object) -> None:
        """Write a frame when there is room.

        Raises:
            ChannelInvalidStateError: the channel has been answered.
        """
        if self._answered:
            raise ChannelInvalidStateError("RabbitMQ has closed the channel")
        await self._frames.put(frame)

    def put_nowait(self, answer: object) -> None:
        """Write the answer behind all that waits by now."""
        self._answered = True
        self._frames.put_nowait(answer)
