"""Work on a connection: a cancellation does not cut it off, and a dead connection does not cancel.

What aiormq (7.2.4) sends of an opening, a closing or a declaration that was cancelled can be out of
order, and RabbitMQ closes the connection for it ("expected 'channel.open'"), with all that others
have in hand on it. So whoever is cancelled goes at once, and what was begun ends by itself.

When heartbeats have stayed away, aiormq ends all that waits on the connection with CancelledError
(``Connection.__heartbeat`` cancels the reader, and the others get what ended that). Nobody has
cancelled those who wait, and they must not take it for that.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_T = TypeVar("_T")

_begun: set[asyncio.Future[Any]] = set()
"""Held here, since an event loop holds its tasks weakly."""


@contextmanager
def raising_connection_lost() -> Iterator[None]:
    """Raise what is awaited in the block and cancelled by a dead connection as its loss.

    Raises:
        ConnectionError: the connection is dead. Where the task itself is cancelled, CancelledError.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionError("the connection was given up: nothing came over it") from error


def spawn(work: Awaitable[_T]) -> asyncio.Future[_T]:
    """Begin `work`, which ends by itself, whoever waits for it or does not."""
    begun = asyncio.ensure_future(work)
    _begun.add(begun)
    begun.add_done_callback(_end)
    return begun


async def run_to_completion(work: Awaitable[_T]) -> _T:
    """Await `work`; where that is cancelled, `work` goes on.

    Raises what `work` raises, and ConnectionError where its connection is dead.
    """
    with raising_connection_lost():
        return await asyncio.shield(spawn(work))


async def within(seconds: float, work: Callable[[], Awaitable[_T]]) -> _T:
    """Await what `work` makes, for at most `seconds`.

    `asyncio.wait_for` takes a coroutine that exists already, and where a task that was to wait for
    it is cancelled before its first step, nobody ever awaits that coroutine.

    Raises:
        TimeoutError: it takes longer.
    """
    async with asyncio.timeout(seconds):
        return await work()


def _end(begun: asyncio.Future[Any]) -> None:
    _begun.discard(begun)
    if not begun.cancelled():
        begun.exception()  # asked for, since whoever was to be told may have been cancelled
