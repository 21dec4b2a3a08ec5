"""When expired records are swept, and how many at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.idempotency._base import AioStore, SyncStore

_BATCH = 500
"""Records that one transaction deletes: it holds their locks, and on SQLite all others' too."""

_MOST_BATCHES = 40
"""Batches of one sweep. What is left goes with the next one."""


class Due:
    """Whether it is time to sweep.

    Calls ask; nothing runs between them. If two threads ask at the same time, both may sweep: they
    delete different records, or nothing.

    Args:
        every: seconds between sweeps; None for never.
        monotonic: the clock.
    """

    def __init__(
        self, every: float | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._every = every
        self._monotonic = monotonic
        self._last = monotonic()

    def now(self) -> bool:
        """Return whether a sweep is due, and count the time from now if it is."""
        if self._every is None or (at := self._monotonic()) - self._last < self._every:
            return False
        self._last = at
        return True


def sweep_batches(store: SyncStore) -> None:
    """Delete expired records, batch by batch."""
    for _ in range(_MOST_BATCHES):
        if store.sweep(limit=_BATCH) < _BATCH:
            return


async def aio_sweep_batches(store: AioStore) -> None:
    """Delete expired records, batch by batch."""
    for _ in range(_MOST_BATCHES):
        if await store.sweep(limit=_BATCH) < _BATCH:
            return
