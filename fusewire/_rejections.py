"""Who hears of a rejection by a circuit where it happens, in the context of the call.

Listeners of a breaker hear of it too, but perhaps on the thread of another call, and asking for
that slows every call down.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fusewire._throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.errors import CircuitOpenError

logger = logging.getLogger("fusewire.breaker")


class RejectionWatchers:
    """Called with each rejection of the process. One that raises is logged and changes nothing.

    Attributes:
        watchers: how often each was added; nobody is called while it is empty.
    """

    def __init__(self) -> None:
        self.watchers: dict[Callable[[CircuitOpenError], None], int] = {}
        self._failures = Throttle()

    def add(self, watcher: Callable[[CircuitOpenError], None]) -> Callable[[], None]:
        """Call `watcher` once for each rejection; return the function that ends it.

        Added several times, it is called until each of them has ended.
        """
        watchers = dict(self.watchers)
        watchers[watcher] = watchers.get(watcher, 0) + 1
        self.watchers = watchers  # whole, because others go through it meanwhile
        return lambda: self._end(watcher)

    def _end(self, watcher: Callable[[CircuitOpenError], None]) -> None:
        watchers = dict(self.watchers)
        watchers[watcher] = watchers.get(watcher, 0) - 1
        self.watchers = {each: count for each, count in watchers.items() if count > 0}

    def notify(self, rejection: CircuitOpenError) -> None:
        """Call all watchers."""
        for watcher in self.watchers:
            try:
                watcher(rejection)
            except Exception as error:
                if (more := self._failures.more(error)) is not None:
                    logger.exception("a watcher of rejections raised%s", more)


rejections = RejectionWatchers()
