"""Logging one error of a kind in a minute: a thousand say no more than the first."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fusewire._error_types import error_type

if TYPE_CHECKING:
    from collections.abc import Callable

_QUIET = 60.0
"""Seconds after one of a kind is logged in which others of that kind are only counted."""

_KINDS_KEPT = 64

_Kind = tuple[type, str, int]
"""Errors are of one kind if they have the same type and were raised in the same line."""


class Unsaid(NamedTuple):
    """How many errors of a kind were not logged.

    Attributes:
        number: how many.
        error_type: their type.
        where: the file and line that raised them; empty if they have no traceback.
    """

    number: int
    error_type: str
    where: str


class Throttle:
    """Decides whether to log an error, and counts those like it that were not logged.

    Where somebody looks often, ask :meth:`is_first` about each error, and :meth:`overdue` for the
    counts. Elsewhere :meth:`unsaid` has an error logged each minute, with the count.

    If threads ask at the same time, each may log; preventing that is not worth a lock.

    Args:
        monotonic: the clock.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # By kind: until when others are only counted, and their number. The last seen stands last.
        self._kinds: dict[_Kind, tuple[float, int]] = {}

    def unsaid(self, error: BaseException) -> int | None:
        """Return how many like it were not logged; None if this one is not to be logged either."""
        now, kind = self._monotonic(), _kind(error)
        quiet_until, unsaid = self._kinds.pop(kind, (now, 0))
        if now < quiet_until:
            self._kinds[kind] = quiet_until, unsaid + 1
            return None
        self._say(kind, now)
        return unsaid

    def more(self, error: BaseException) -> str | None:
        """Return what ends the line about an error; None if it is not to be logged."""
        unsaid = self.unsaid(error)
        if unsaid is None:
            return None
        return f" ({unsaid} more like it were not logged)" if unsaid else ""

    def is_first(self, error: BaseException) -> bool:
        """Return whether none like it came in the minute before; else it is only counted."""
        now, kind = self._monotonic(), _kind(error)
        quiet_until, unsaid = self._kinds.pop(kind, (now, 0))
        if now < quiet_until or unsaid:
            self._kinds[kind] = quiet_until, unsaid + 1
            return False
        self._say(kind, now)
        return True

    def overdue(self) -> list[Unsaid]:
        """Return the counts of a minute that is over; the errors that follow are counted again."""
        return self._take(self._monotonic())

    def rest(self) -> list[Unsaid]:
        """Return all counts, for a last line: nobody looks any more."""
        return self._take(math.inf)

    def _take(self, at: float) -> list[Unsaid]:
        """Return the counts that are due `at` some time."""
        now = self._monotonic()
        counted = []
        for kind, (quiet_until, unsaid) in list(self._kinds.items()):
            if unsaid and at >= quiet_until:
                self._kinds[kind] = now + _QUIET, 0
                counted.append(Unsaid(unsaid, error_type(kind[0]), _place(kind)))
        return counted

    def _say(self, kind: _Kind, now: float) -> None:
        self._kinds[kind] = now + _QUIET, 0
        for oldest in list(self._kinds)[:-_KINDS_KEPT]:
            self._kinds.pop(oldest, None)


def _kind(error: BaseException) -> _Kind:
    trace = error.__traceback__
    if trace is None:
        return type(error), "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return type(error), trace.tb_frame.f_code.co_filename, trace.tb_lineno


def _place(kind: _Kind) -> str:
    _, file, line = kind
    return f"{Path(file).name}:{line}" if file else ""
