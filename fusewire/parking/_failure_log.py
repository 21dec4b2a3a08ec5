"""The log of first failures: a handler's error is seen at once, and a thousand of a kind once."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from fusewire._causes import status_in
from fusewire._error_types import error_type
from fusewire._log_fields import fields
from fusewire._throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fusewire._throttle import Unsaid
    from fusewire.parking._history import History

logger = logging.getLogger("fusewire.parking")


class FailureLog:
    """Logs the first failed attempt of a message, with its traceback; those like it are counted.

    Args:
        handler: the handler's name.
        monotonic: for the time between two of a kind.
    """

    def __init__(self, handler: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._handler = handler
        self._throttle = Throttle(monotonic)

    def note(self, history: History, error: BaseException) -> None:
        """Log that a message with `history` failed with `error`, unless it failed before."""
        if history.attempts or history.outage_attempts:
            return
        if not self._throttle.is_first(error):
            return
        logger.warning(
            "the first attempt of operation %s failed in handler %s",
            history.operation_id,
            self._handler,
            exc_info=error,
            extra=fields(
                "message.failed",
                queue=history.queue,
                handler=self._handler,
                operation_id=history.operation_id,
                error_type=error_type(type(error)),
                error_status=status_in(error),
                count=1,
            ),
        )

    def look(self) -> None:
        """Log how many were not logged in a minute that is over."""
        self._say(self._throttle.overdue())

    def end(self) -> None:
        """Log how many were not logged until the end."""
        self._say(self._throttle.rest())

    def _say(self, counts: Iterable[Unsaid]) -> None:
        for count, kind, where in counts:
            logger.warning(
                "%d more first attempts failed in handler %s, as one that was logged: %s at %s",
                count,
                self._handler,
                kind,
                where or "an unknown place",
                extra=fields("message.failed", handler=self._handler, error_type=kind, count=count),
            )
