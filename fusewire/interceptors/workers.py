"""Threads for what may block on a sync channel: fallbacks of futures, and users' callbacks."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_MOST = 16  # at most so many block at a time; more wait their turn


class _Workers:
    """A pool that is made when it is first needed, anew after a fork."""

    def __init__(self, name: str) -> None:
        self._name = name
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
                self._pool = ThreadPoolExecutor(_MOST, thread_name_prefix=self._name)
            pool = self._pool
        pool.submit(job)


_fallbacks = _Workers("fusewire-fallback")
_callbacks = _Workers("fusewire-callback")  # apart, so that no callback waits for a fallback
os.register_at_fork(after_in_child=_fallbacks.forget)
os.register_at_fork(after_in_child=_callbacks.forget)


def run_in_worker(job: Callable[[], None]) -> None:
    """Run a fallback, which handles its own errors, in a thread where it may block.

    Raises:
        RuntimeError: the interpreter is shutting down.
    """
    _fallbacks.submit(job)


class DoneCallbacks:
    """Runs the done callbacks of one call, one after the other, in a thread of ours.

    grpcio calls them from a thread of the channel's, and libraries rely on it: a callback that
    makes the call again would recurse on the caller's thread, before the caller has its call.
    """

    __slots__ = ("_lock", "_running", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = False

    def add(self, callback: Callable[[], None]) -> None:
        """Run `callback` soon; what it raises is logged."""
        with self._lock:
            self._waiting.append(callback)
            if self._running:
                return
            self._running = True
        try:
            _callbacks.submit(self._run)
        except RuntimeError:  # the interpreter is shutting down: there will be no other thread
            self._run()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                callback = self._waiting.popleft()
            try:
                callback()
            except Exception:
                logger.exception("a done callback raised")
