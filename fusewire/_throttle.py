"""Logging one error of a kind in a minute: a thousand say no more than the first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_QUIET = 60.0
"""Seconds after one of a kind is logged in which others of that kind are only counted."""

_KINDS_KEPT = 64


class Throttle:
    """Decides whether to log an error, and counts those like it that were not logged.

    Errors are of one kind if they have the same type and were raised in the same line. If threads
    ask at the same time, each may log; preventing that is not worth a lock.

    Args:
        monotonic: the clock.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._kinds: dict[tuple[type, str, int], tuple[float, int]] = {}

    def unsaid(self, error: BaseException) -> int | None:
        """Return how many like it were not logged; None if this one is not to be logged either."""
        now, kind = self._monotonic(), _kind(error)
        quiet_until, unsaid = self._kinds.get(kind, (now, 0))
        if now < quiet_until:
            self._kinds[kind] = quiet_until, unsaid + 1
            return None
        if len(self._kinds) >= _KINDS_KEPT:
            self._kinds.clear()
        self._kinds[kind] = now + _QUIET, 0
        return unsaid


def _kind(error: BaseException) -> tuple[type, str, int]:
    trace = error.__traceback__
    if trace is None:
        return type(error), "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return type(error), trace.tb_frame.f_code.co_filename, trace.tb_lineno
