"""Operations that a cancellation does not cut off, and that a dead connection does not cancel.

After a cancelled open, close or declare, the frames that aiormq (7.2.4) sends can be out of order.
RabbitMQ then closes the connection ("expected 'channel.open'"), with all that others have in flight
on it. So the task that is cancelled returns at once, and the operation runs to its end without it.

If heartbeats stay away, aiormq ends everything that waits on the connection with CancelledError:
``Connection.__heartbeat`` cancels the reader, and the others get what ended the reader. Nobody has
cancelled the tasks that wait, so they get ConnectionError here.

Upstream: https://github.com/mosquito/aiormq/issues/70 (open),
https://github.com/mosquito/aiormq/pull/104.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_T = TypeVar("_T")

_running: set[asyncio.Future[Any]] = set()
"""Held here, since an event loop holds its tasks weakly."""


@contextmanager
def raising_connection_lost() -> Iterator[None]:
    """Report a dead connection, which cancels what the block awaits, as ConnectionError.

    Raises:
        ConnectionError: the connection is dead. If the task itself is cancelled, CancelledError.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionError("the connection was given up: nothing came over it") from error


def spawn(work: Awaitable[_T]) -> asyncio.Future[_T]:
    """Start `work`, which runs to its end, whether a task waits for it or not."""
    running = asyncio.ensure_future(work)
    _running.add(running)
    running.add_done_callback(_end)
    return running


async def run_to_completion(work: Awaitable[_T]) -> _T:
    """Await `work`, which goes on if the task that awaits it is cancelled.

    Raises what `work` raises, and ConnectionError if its connection is dead.
    """
    with raising_connection_lost():
        return await asyncio.shield(spawn(work))


async def within(seconds: float, work: Callable[[], Awaitable[_T]]) -> _T:
    """Await what `work` makes, for at most `seconds`.

    `asyncio.wait_for` takes a coroutine that exists already. If the task that should await it is
    cancelled before its first step, that coroutine is never awaited.

    Raises:
        TimeoutError: it takes longer.
    """
    async with asyncio.timeout(seconds):
        return await work()


def _end(running: asyncio.Future[Any]) -> None:
    _running.discard(running)
    if not running.cancelled():
        running.exception()  # retrieved, because the task that waited may have been cancelled
