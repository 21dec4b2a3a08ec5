"""Work on a connection that a cancellation does not cut off.

What aiormq (7.2.4) sends of an opening, a closing or a declaration that was cancelled can be out of
order, and RabbitMQ closes the connection for it ("expected 'channel.open'"), with all that others
have in hand on it. So whoever is cancelled goes at once, and what was begun ends by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

_T = TypeVar("_T")

_begun: set[asyncio.Future[Any]] = set()
"""Held here, since an event loop holds its tasks weakly."""


def begin(work: Awaitable[_T]) -> asyncio.Future[_T]:
    """Begin `work`, which ends by itself, whoever waits for it or does not."""
    begun = asyncio.ensure_future(work)
    _begun.add(begun)
    begun.add_done_callback(_end)
    return begun


async def uncut(work: Awaitable[_T]) -> _T:
    """Await `work`; where that is cancelled, `work` goes on."""
    return await asyncio.shield(begin(work))


def _end(begun: asyncio.Future[Any]) -> None:
    _begun.discard(begun)
    if not begun.cancelled():
        begun.exception()  # asked for, since whoever was to be told may have been cancelled
