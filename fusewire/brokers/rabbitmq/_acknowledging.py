"""Acknowledgements of one channel: what is settled at the same time is acknowledged together."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from fusewire.brokers.rabbitmq._workarounds.cancellation import (
    raising_connection_lost,
    spawn,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import aiormq.abc

logger = logging.getLogger("fusewire.brokers.rabbitmq")

_TURNS = 3
"""Turns of the event loop in which a batch gathers: what is ready to be settled, and no more.

With none, a busy consumer's batches held three acknowledgements; with three turns they hold eight,
and it handles a fifth more messages (``benchmarks/parking.py``).
"""


class Acknowledger:
    """Writes the acknowledgements of one channel, a batch at a time.

    A batch is what has been settled while the one before was being written, and in a few turns of
    the event loop after that. No acknowledgement waits for a time, or for others to come.

    Args:
        channel: the channel that the deliveries came on.
        timeout: seconds that it may take to write a batch.
    """

    def __init__(self, channel: aiormq.abc.AbstractChannel, timeout: float) -> None:
        self._channel = channel
        self._timeout = timeout
        self._tags = Tags()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._writing: asyncio.Task[None] | None = None
        self._held = False
        self.settled = 0
        """Deliveries that it was asked to acknowledge so far."""
        self.written = 0
        """Deliveries that it has acknowledged so far."""
        self.written_at = -math.inf
        """When it acknowledged last, by the event loop's clock."""

    def hold(self) -> None:
        """Write none until :meth:`resume`: each would have the broker send another message."""
        self._held = True

    def resume(self) -> None:
        """Write what waits, and what comes."""
        self._held = False
        self._begin()

    async def acknowledge(self, tag: int) -> None:
        """Acknowledge the delivery `tag`; returns when that is written to the socket.

        Raises what aiormq raises when the channel is gone, ConnectionError, or TimeoutError. The
        channel is closed then, so that what may not be acknowledged comes again.
        """
        written = asyncio.get_running_loop().create_future()
        self._waiting[tag] = written
        self.settled += 1
        self._begin()
        await written

    def _begin(self) -> None:
        if self._writing is None and self._waiting and not self._held:
            self._writing = asyncio.create_task(self._write_all(), name="acknowledge")
            self._writing.add_done_callback(self._written_all)

    async def _write_all(self) -> None:
        while self._waiting:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            if self._held:
                return
            batch, self._waiting = self._waiting, {}
            self.written += len(batch)
            self.written_at = asyncio.get_running_loop().time()
            await self._write(batch)

    async def _write(self, batch: dict[int, asyncio.Future[None]]) -> None:
        error: Exception | None = _cut_off()
        try:
            async with asyncio.timeout(self._timeout):
                # Of several frames the last is waited for: they are written in order.
                *frames, last = self._tags.settle(batch)
                with raising_connection_lost():
                    for tag, multiple in frames:
                        await self._channel.basic_ack(tag, multiple, wait=False)
                    await self._channel.basic_ack(*last)
            error = None
        except Exception as failed:  # noqa: BLE001 - raised in each task that waits
            error = failed
        finally:
            _tell(batch.values(), error)
            if error is not None:
                self._close()

    def _written_all(self, writing: asyncio.Task[None]) -> None:
        self._writing = None
        try:
            writing.result()
        except (asyncio.CancelledError, Exception):
            logger.exception(
                "acknowledgements were cut off by something else: their channel is closed, and "
                "RabbitMQ delivers again what is not acknowledged"
            )
            waiting, self._waiting = self._waiting, {}
            _tell(waiting.values(), _cut_off())
            self._close()
        self._begin()

    def _close(self) -> None:
        """Close the channel, so that what is not acknowledged does not stay in flight."""

        def again(closing: asyncio.Future[None]) -> None:
            if closing.cancelled() and not self._channel.is_closed:
                self._close()

        spawn(within(self._timeout, self._channel.close)).add_done_callback(again)


def _cut_off() -> ConnectionError:
    return ConnectionError("acknowledgements were cut off")


def _tell(waiting: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    for written in waiting:
        if written.done():  # its waiter was cancelled
            continue
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)


class Tags:
    """Which delivery tags of a channel are settled; AMQP counts them from 1.

    A frame with `multiple` acknowledges everything up to its tag, so it is used only where
    everything up to there is settled, and only for a tag that is not acknowledged yet: the broker
    answers an unknown one by closing the channel.
    """

    def __init__(self) -> None:
        self._up_to = 0
        self._beyond: set[int] = set()

    def settle(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """Return the frames that acknowledge `tags`, each a tag and whether it is `multiple`."""
        first, run, single = 0, 0, []
        for tag in sorted(tags):
            self._skip_beyond()
            if tag == self._up_to + 1:
                self._up_to = tag
                first, run = first or tag, tag
            else:
                single.append((tag, False))
        self._beyond.update(tag for tag, _ in single)
        self._skip_beyond()
        return [(run, run > first), *single] if run else single

    def _skip_beyond(self) -> None:
        while self._up_to + 1 in self._beyond:
            self._up_to += 1
            self._beyond.remove(self._up_to)
