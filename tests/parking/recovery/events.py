"""Virtual time: events in the order in which they are due."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Action = Callable[[Any], None]


class Events:
    """What is to happen, and when. `now` is the time of what happens now, in seconds.

    An event is an action with one argument. Two at one time happen in the order of the requests.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Action, Any]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now

    def at(self, when: float, action: Action, argument: Any = None) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, action, argument))

    def run(self, until: float, finished: Callable[[], bool]) -> None:
        """Let things happen up to a time, or until `finished`."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until:
            self.now, _, action, argument = pop(heap)
            action(argument)
            if finished():
                return
        self.now = until
