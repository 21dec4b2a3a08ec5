"""The log of first failures: a handler's error is seen at once, and a thousand of a kind once."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.parking._history import History

logger = logging.getLogger("fusewire.parking")

_QUIET = 60.0
"""Seconds after one of a kind was logged in which others of it are only counted."""

_KINDS_KEPT = 64


class FailureLog:
    """Logs the first failed attempt of a message, with its traceback.

    Failures are of one kind if they have the same type and were raised in the same line.

    Args:
        handler: the handler's name.
        monotonic: for the time between two of a kind.
    """

    def __init__(self, handler: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._handler = handler
        self._monotonic = monotonic
        self._kinds: dict[tuple[type, str, int], _Kind] = {}

    def note(self, history: History, error: BaseException) -> None:
        """Log that a message with `history` failed with `error`, unless it failed before."""
        if history.attempts or history.outage_attempts:
            return
        now = self._monotonic()
        kind = self._kind(error)
        if now < kind.quiet_until:
            kind.unsaid += 1
            return
        more = f" ({kind.unsaid} more like it were not logged)" if kind.unsaid else ""
        kind.unsaid, kind.quiet_until = 0, now + _QUIET
        logger.warning(
            "the first attempt of operation %s failed in handler %s%s",
            history.operation_id,
            self._handler,
            more,
            exc_info=error,
        )

    def _kind(self, error: BaseException) -> _Kind:
        key = _key(error)
        kind = self._kinds.pop(key, None) or _Kind()
        self._kinds[key] = kind  # the last one seen stands last
        if len(self._kinds) > _KINDS_KEPT:
            del self._kinds[next(iter(self._kinds))]
        return kind


class _Kind:
    __slots__ = ("quiet_until", "unsaid")

    def __init__(self) -> None:
        self.quiet_until = float("-inf")
        self.unsaid = 0


def _key(error: BaseException) -> tuple[type, str, int]:
    trace = error.__traceback__
    if trace is None:
        return type(error), "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return type(error), trace.tb_frame.f_code.co_filename, trace.tb_lineno
