"""Threads for what may block on a sync channel: fallbacks of futures, and users' callbacks."""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fusewire._locks import make_lock, renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_MOST = 16  # at most so many block at a time; more wait their turn


class _Workers:
    """A pool that is made when it is first needed, and again after a fork."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = make_lock()
        self._pool: ThreadPoolExecutor | None = None
        renew_in_child(self, _Workers._forget)

    def _forget(self) -> None:
        """Leave the pool behind: its threads do not exist in a forked child."""
        self._pool = None

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

    __slots__ = ("_turn", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        # Whose turn it is to run them: a token of theirs under one key. Setting what is not set is
        # one step, so this needs no lock, and a finalizer may add a callback at any time.
        self._turn: dict[str, object] = {}

    def add(self, callback: Callable[[], None]) -> None:
        """Run `callback` soon; what it raises is logged."""
        self._waiting.append(callback)
        if not self._take_turn():
            return
        try:
            _callbacks.submit(self._run)
        except RuntimeError:  # the interpreter is shutting down: there will be no other thread
            self._run()

    def _take_turn(self) -> bool:
        token = object()
        return self._turn.setdefault("turn", token) is token

    def _run(self) -> None:
        """Run what waits, in the thread whose turn it is."""
        turn = True
        while turn:
            while self._waiting:
                callback = self._waiting.popleft()
                try:
                    callback()
                except Exception:
                    logger.exception("a done callback raised")
            del self._turn["turn"]
            # One that was added just before would have nobody to run it.
            turn = bool(self._waiting) and self._take_turn()
