"""Workers that do not stay down: what ends by an error is said, and begun again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fusewire.parking._waiting import Backoff

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

logger = logging.getLogger("fusewire.parking")

_LONGEST_WAIT = 60.0
"""Seconds between starts, at most."""


async def keep_running(
    name: str, run: Callable[[], Awaitable[None]], stopping: asyncio.Event
) -> None:
    """Await `run()`, and again after any error, until it returns or the consumer stops.

    Args:
        name: what it is, for the log.
        run: called for each start.
        stopping: set when the consumer ends.
    """
    backoff = Backoff(longest=_LONGEST_WAIT)
    while True:
        try:
            await run()
        except Exception:
            logger.exception("%s ended by an error and is started again", name)
        else:
            return
        if await backoff.wait(stopping):
            return
