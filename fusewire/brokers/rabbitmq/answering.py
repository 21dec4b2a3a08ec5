"""The answer that RabbitMQ waits for when it has closed a channel, which aiormq may not send.

aiormq (7.2.4) puts its Channel.CloseOk into the connection's queue of frames to write, which holds
ten, and drops it where that is full (``Channel._on_close_frame`` suppresses ``QueueFull``). Without
the answer RabbitMQ keeps what is unacknowledged on the channel until the connection ends, and
gives it to nobody. A channel's own queue in front of that one keeps the answer until there is room.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiormq.exceptions import ChannelInvalidStateError

from fusewire.brokers.rabbitmq.uncut import begin

if TYPE_CHECKING:
    import aiormq.abc


def answer_always(channel: aiormq.abc.AbstractChannel) -> None:
    """Have `channel` answer when RabbitMQ closes it, however busy its connection is."""
    channel.write_queue = ChannelFrames(channel.connection.write_queue)  # type: ignore[attr-defined]  # not in the abstract class


class ChannelFrames:
    """The frames of one channel, in order; nothing comes after the answer.

    RabbitMQ closes the connection for a frame on a channel that has been answered.
    """

    def __init__(self, frames: asyncio.Queue[object]) -> None:
        self._frames = frames
        self._turns = asyncio.Lock()  # it is fair, which a full queue is not
        self._answered = False

    async def put(self, frame: object) -> None:
        """Write a frame when there is room.

        Raises:
            ChannelInvalidStateError: the channel has been answered.
        """
        if self._answered:
            raise ChannelInvalidStateError("RabbitMQ has closed the channel")
        await self._put(frame)

    def put_nowait(self, answer: object) -> None:
        """Write the answer behind all that waits by now; nothing else is written in this way."""
        self._answered = True
        begin(self._put(answer))

    async def _put(self, frame: object) -> None:
        async with self._turns:
            await self._frames.put(frame)
