"""How long some messages take: the clock of a lap."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

LIMIT = 120.0  # seconds for one lap
PAUSE = 0.3
"""Seconds before a lap's channels are closed.

Of the last acknowledgements before a channel is closed, a quorum queue that is under load drops
some, and then the messages come again.
"""


@dataclass(frozen=True)
class Lap:
    """Some messages, settled: wall clock and this process's CPU, in seconds per message."""

    wall: float
    cpu: float


class Stopwatch:
    """Runs from the first of `messages` settlements to the last."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._count = 0
        self._begin = (0.0, 0.0)
        self._end = (0.0, 0.0)
        self._done = asyncio.Event()

    def note(self) -> None:
        """Count a settlement."""
        self._count += 1
        if self._count == 1:
            self._begin = (time.perf_counter(), time.process_time())
        if self._count == self._messages:
            self._end = (time.perf_counter(), time.process_time())
            self._done.set()

    async def lap(self) -> Lap:
        """Wait for the last settlement."""
        await asyncio.wait_for(self._done.wait(), LIMIT)
        await asyncio.sleep(PAUSE)
        wall, cpu = (
            (end - begin) / (self._messages - 1)
            for begin, end in zip(self._begin, self._end, strict=True)
        )
        return Lap(wall, cpu)
