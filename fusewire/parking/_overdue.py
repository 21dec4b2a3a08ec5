"""Noticing what lasts for too long, by one timer for all of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Overdue(Generic[_T]):
    """Reports what has lasted for `seconds`, once.

    A timer for each would cost as much as the rest of handling a message, and hardly one of them
    ever runs out. All have the same time, so the first that began is the first that is late.

    Args:
        seconds: the time that each has.
        late: called on the event loop with what has lasted that long.
    """

    def __init__(self, seconds: float, late: Callable[[_T], None]) -> None:
        self._seconds = seconds
        self._late = late
        self._due: dict[_T, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, what: _T) -> None:
        """Note that `what` begins now."""
        loop = asyncio.get_running_loop()
        self._due[what] = loop.time() + self._seconds
        if self._timer is None or self._loop is not loop:  # which a consumer may leave for another
            self._loop = loop
            self._wait_for_first(loop)

    def end(self, what: _T) -> None:
        """Note that `what` has ended. Its timer may go off in vain, and sees that."""
        self._due.pop(what, None)

    def _wait_for_first(self, loop: asyncio.AbstractEventLoop) -> None:
        first = next(iter(self._due.values()), None)
        self._timer = None if first is None else loop.call_at(first, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        try:
            for what in [what for what, due in self._due.items() if due <= now]:
                del self._due[what]
                self._late(what)
        finally:
            self._wait_for_first(loop)
