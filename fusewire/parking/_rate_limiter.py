"""How often replays may start: at most so many a second, never two at once to catch up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class RateLimiter:
    """Spaces starts, so that any time of w seconds sees at most ``rate * w + 1`` of them.

    Args:
        rate: starts a second, at most; None for as many as come.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.limit(rate)
        self._last: float | None = None

    def limit(self, rate: float | None) -> None:
        """Space the next starts by another rate. The next one counts from the last one."""
        self._gap = None if rate is None else 1 / rate

    def start(self) -> float:
        """Take the next start if it is due; return 0 then, else the seconds until it is."""
        if self._gap is None:
            return 0.0
        now = self._clock()
        if self._last is not None and (left := self._gap - (now - self._last)) > 0:
            return left
        self._last = now
        return 0.0
