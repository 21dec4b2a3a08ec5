"""Threads for what may block on a sync channel: fallbacks of futures, and users' callbacks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fusewire._locks import make_lock, renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.interceptors._done_callbacks import DoneCallbacks

_MAX_WORKERS = 16  # more jobs than that wait their turn


class _Executor:
    """A thread pool that is made when it is first needed, and made again after a fork."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = make_lock()
        self._pool: ThreadPoolExecutor | None = None
        renew_in_child(self, _Executor._drop_pool)

    def _drop_pool(self) -> None:
        """Leave the pool behind: its threads do not exist in a forked child."""
        self._pool = None

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` in a thread of the pool.

        Raises:
            RuntimeError: the interpreter is shutting down.
        """
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_MAX_WORKERS, thread_name_prefix=self._name)
            pool = self._pool
        pool.submit(job)


_fallbacks = _Executor("fusewire-fallback")
_callbacks = _Executor("fusewire-callback")  # apart, so that no callback waits for a fallback


def run_fallback(job: Callable[[], None]) -> None:
    """Run a fallback, which handles its own errors, in a thread where it may block.

    Raises:
        RuntimeError: the interpreter is shutting down.
    """
    _fallbacks.submit(job)


def run_callbacks(callbacks: DoneCallbacks) -> None:
    """Run the callbacks that wait, soon, in a thread of ours.

    grpcio calls them from a thread of the channel's, and libraries rely on it: a callback that
    makes the call again would recurse on the caller's thread, before the caller has its call.
    """
    if not callbacks:
        return
    try:
        _callbacks.submit(callbacks.run)
    except RuntimeError:  # the interpreter is shutting down: there will be no other thread
        callbacks.run()
