"""What an event loop hears of jobs that threads wait for."""

from __future__ import annotations

import contextvars
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_REST = 0.02
"""Seconds between two times at which the event loop hears, if there is more to hear."""


class Hearing:
    """Has functions called on an event loop: the first at once, those after it every 20 ms.

    A loop that wakes up for each of many jobs holds up the threads that ask for them, because only
    one thread of Python runs at a time: a seventh of a receipt.

    Args:
        loop: where they are called.
        tell: calls a function on the loop, from any thread.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tell: Callable[[Callable[[], None]], None]
    ) -> None:
        self._loop = loop
        self._tell = tell
        self._unheard: deque[Callable[[], None]] = deque()
        self._rest: asyncio.TimerHandle | None = None
        self._awake = False

    def add(self, hear: Callable[[], None]) -> None:
        """Have `hear` called soon; from the file's thread."""
        self._unheard.append(hear)
        if not self._awake:
            self._awake = True
            self._tell(self._wake)

    def end(self) -> None:
        """Call what is left, on the event loop; nothing may be added any more."""
        if self._rest is not None:
            self._rest.cancel()
        contextvars.Context().run(self._hear)  # not in the context of the code that closes

    def _wake(self) -> None:
        self._hear()
        if self._rest is not None:
            self._rest.cancel()
        self._rest = self._loop.call_later(_REST, self._go_on)

    def _go_on(self) -> None:
        self._awake = False
        if self._unheard:  # also what was added before that line, and has not told the loop
            self._awake = True
            self._wake()

    def _hear(self) -> None:
        while self._unheard:
            self._loop.call_soon(self._unheard.popleft())  # one that fails stops no other
