"""Which results of plain functions are still pending.

A call is settled when its result is there. A task, a future or a gRPC call reports its own end, so
the caller gets the object itself. An object that has to be awaited or iterated over is guarded
while that happens, as a coroutine function or a generator function is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

PLAIN: set[type] = set()
"""Types whose objects are known to be complete results. A cache, because finding out is slow."""

MOST_PLAIN = 512
"""Types that the cache keeps alive at most."""


def comes_later(result: object) -> bool:
    """Return whether `result` is pending."""
    kind = type(result)
    if kind in PLAIN:
        return False
    if (
        reports_its_end(result)
        or hasattr(kind, "__await__")
        or issubclass(kind, (Generator, AsyncGenerator))
    ):
        return True
    if len(PLAIN) >= MOST_PLAIN:
        PLAIN.clear()
    PLAIN.add(kind)
    return False


def reports_its_end(result: object) -> bool:
    """Return whether `result` has done callbacks, as tasks, futures and gRPC calls have."""
    return hasattr(type(result), "add_done_callback")
