"""The callbacks that a call's user has added, to be called when the call is over."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("fusewire.interceptors")


class DoneCallbacks:
    """The done callbacks of one call, called once each and one after the other.

    Callbacks may be added, and :meth:`run` called, from any thread and in any finalizer.
    """

    __slots__ = ("_turn", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        # Whose turn it is to run them: a token of theirs under one key. Setting what is not set is
        # one step, so this needs no lock, and a finalizer may add a callback at any time.
        self._turn: dict[str, object] = {}

    def __bool__(self) -> bool:
        """Return whether any wait."""
        return bool(self._waiting)

    def add(self, callback: Callable[[], object]) -> None:
        """Keep `callback` until :meth:`run` is called."""
        self._waiting.append(callback)

    def run(self) -> None:
        """Call those that wait; log what they raise. Another thread's turn includes them."""
        # One that was added just before a turn ends would have nobody to run it: so look again.
        while self._waiting and self._take_turn():
            try:
                self._run_all()
            finally:
                del self._turn["turn"]

    def _run_all(self) -> None:
        while self._waiting:
            callback = self._waiting.popleft()
            try:
                callback()
            except (Exception, SystemExit):
                logger.exception("a done callback raised")

    def _take_turn(self) -> bool:
        token = object()
        return self._turn.setdefault("turn", token) is token
