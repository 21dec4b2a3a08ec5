"""Waiting for a condition, with a limit; instead of sleeping for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def until(
    condition: Callable[[], Awaitable[Any] | Any], what: str = "", *, limit: float = 30.0
) -> Any:
    """Wait until `condition()` is true, and return what it gave; fail after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        got = condition()
        if inspect.isawaitable(got):
            got = await got
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit:g} s: {what or inspect.getsource(condition)}")
        await asyncio.sleep(0.01)


def until_sync(condition: Callable[[], Any], what: str = "", *, limit: float = 30.0) -> Any:
    """Wait like :func:`until`, without an event loop."""
    end = time.monotonic() + limit
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit:g} s: {what or inspect.getsource(condition)}")
        time.sleep(0.01)
