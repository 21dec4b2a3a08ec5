"""Which results of plain functions are not there yet.

A call is settled when its result is there. What tells its end, such as a task, a future or a call
of gRPC, is given to the caller as it is. What has to be awaited or iterated over first is guarded
while it is, as a coroutine function or a generator function would be.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

PLAIN: set[type] = set()
"""Types whose objects are results that are there, as far as they have been seen: asking is slow."""

MOST_PLAIN = 512
"""Types that are kept alive at most by being known."""


def comes_later(result: object) -> bool:
    """Tell whether `result` is not there yet."""
    kind = type(result)
    if kind in PLAIN:
        return False
    if (
        tells_its_end(result)
        or hasattr(kind, "__await__")
        or issubclass(kind, (Generator, AsyncGenerator))
    ):
        return True
    if len(PLAIN) >= MOST_PLAIN:
        PLAIN.clear()
    PLAIN.add(kind)
    return False


def tells_its_end(result: object) -> bool:
    """Tell whether `result` has done callbacks, as tasks, futures and calls of gRPC have."""
    return hasattr(type(result), "add_done_callback")
