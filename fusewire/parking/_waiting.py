"""Waiting for a time or an event, and longer each time when a broker does not answer."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusewire.errors import BrokerError

_FIRST = 0.1  # seconds
_MOST = 5.0


async def sleep_unless_stopping(seconds: float, stopping: asyncio.Event) -> bool:
    """Wait for `seconds` or until stopping; return whether stopping came first."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def wait_any(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait for `seconds` or until one of the events is set."""
    loop = asyncio.get_running_loop()
    until = None if seconds is None else loop.time() + seconds
    cut_off = True
    while cut_off:
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        left = None if until is None else until - loop.time()
        try:
            done, _ = await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        # By something else: then what was waited for has not come.
        cut_off = any(wait.cancelled() for wait in done) and not any(
            event.is_set() for event in events
        )


def level_of(error: BrokerError) -> int:
    """Return how loudly to log `error`: a warning, unless the broker has said so for all."""
    return logging.DEBUG if error.logged else logging.WARNING


class Backoff:
    """Exponential back-off from 0.1 s on, with equal jitter (AWS Architecture Blog, 2015).

    Args:
        longest: seconds that it grows to.
    """

    def __init__(self, longest: float = _MOST) -> None:
        self._longest = longest
        self._next = _FIRST

    def reset(self) -> None:
        """Start again from the shortest wait, after a success."""
        self._next = _FIRST

    def draw(self) -> float:
        """Return the seconds to wait now; the next time they are longer."""
        # Half of it is certain, or a run of small draws would hammer a broker that is down.
        seconds = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        self._next = min(self._next * 2, self._longest)
        return seconds

    async def wait(self, stopping: asyncio.Event) -> bool:
        """Wait; return whether stopping came first."""
        return await sleep_unless_stopping(self.draw(), stopping)
