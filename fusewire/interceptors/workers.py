"""Threads for the fallbacks of sync futures: they may block, grpcio's threads may not."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST = 16  # at most so many fallbacks block at a time; more wait their turn


class _Workers:
    """A pool that is made when it is first needed, anew after a fork."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Leave the pool behind: its threads do not exist in a forked child."""
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` in a thread of the pool.

        Raises:
            RuntimeError: the interpreter is shutting down.
        """
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_MOST, thread_name_prefix="fusewire-fallback")
            pool = self._pool
        pool.submit(job)


_workers = _Workers()
os.register_at_fork(after_in_child=_workers.forget)


def run_in_worker(job: Callable[[], None]) -> None:
    """Run `job`, which handles its own errors, in a thread where it may block.

    Raises:
        RuntimeError: the interpreter is shutting down.
    """
    _workers.submit(job)
