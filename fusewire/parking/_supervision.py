"""Workers that do not stay down: what ends them unasked is said, and they are begun again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from fusewire.parking._waiting import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

logger = logging.getLogger("fusewire.parking")

_LONGEST_WAIT = 60.0
"""Seconds between starts, at most."""


async def keep_all_running(
    workers: Mapping[str, Callable[[], Awaitable[None]]], stopping: asyncio.Event
) -> None:
    """Keep each of `workers` running until it returns or the consumer stops.

    Args:
        workers: what is called for each start, by its name for the log.
        stopping: set when the consumer ends.
    """
    parent = asyncio.current_task()

    def ending() -> bool:
        return parent is None or parent.cancelling() > 0

    begun: set[str] = set()
    async with asyncio.TaskGroup() as group:
        # A task that is cancelled before its first step never was, and the group says nothing.
        while missing := workers.keys() - begun:
            for name in missing:
                keeping = _keep_running(name, workers[name], stopping, begun=begun, ending=ending)
                group.create_task(keeping, name=name)
            await asyncio.sleep(0)


async def _keep_running(
    name: str,
    run: Callable[[], Awaitable[None]],
    stopping: asyncio.Event,
    *,
    begun: set[str],
    ending: Callable[[], bool],
) -> None:
    """Await `run()`, and again whatever ended it, until it returns or the consumer stops.

    Args:
        name: what it is, for the log.
        run: called for each start.
        stopping: set when the consumer ends.
        begun: where it notes that it has made its first step.
        ending: whether a cancellation comes from the task that this one belongs to. Any other
            would leave the queue unserved, because a task group ignores a task that is cancelled.
    """
    begun.add(name)
    backoff = Backoff(longest=_LONGEST_WAIT)
    failed = False
    while True:
        try:
            if failed and await backoff.wait(stopping):
                return
            await run()
        except asyncio.CancelledError:
            if ending():
                raise
            _take_back_cancellations()
            logger.exception("%s was cancelled by something else and is started again", name)
        except Exception:
            logger.exception("%s ended by an error and is started again", name)
        else:
            return
        failed = True


def _take_back_cancellations() -> None:
    """Leave the current task as one that nobody has cancelled."""
    task = asyncio.current_task()
    while task is not None and task.uncancel():
        pass
