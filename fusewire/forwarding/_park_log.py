"""What the log says of calls that were not parked, or not answered: the first, and then numbers."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from fusewire._error_types import error_type
from fusewire._log_fields import fields
from fusewire._throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fusewire._throttle import Unsaid

logger = logging.getLogger("fusewire.forwarding")


class ParkLog:
    """Logs the first call of a kind that could not be parked or answered; more are counted.

    Each of the others is a line at DEBUG, which names the operation.

    Args:
        monotonic: for the time between two of a kind.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._not_parked = Throttle(monotonic)
        self._unanswered = Throttle(monotonic)

    def not_parked(self, operation_id: str, parked: str, error: Exception) -> None:
        """Log that a call was not parked, or perhaps not.

        Args:
            operation_id: which one.
            parked: ``no`` or ``unknown``.
            error: why.
        """
        unsaid = self._not_parked.unsaid(error)
        logger.log(
            _level(unsaid),
            "operation %s could not be parked (parked: %s): %s%s",
            operation_id,
            parked,
            error,
            _more(unsaid),
            extra=fields(
                "call.not_parked",
                operation_id=operation_id,
                reason=parked,
                error_type=error_type(type(error)),
                count=1 + (unsaid or 0),
            ),
        )

    def unanswered(self, operation_id: str, error: Exception) -> None:
        """Log that a call is parked, and that the function that makes its reply failed."""
        unsaid = self._unanswered.unsaid(error)
        logger.log(
            _level(unsaid),
            "operation %s is parked, and its reply failed%s",
            operation_id,
            _more(unsaid),
            exc_info=None if unsaid is None else error,
            extra=fields(
                "call.unanswered",
                operation_id=operation_id,
                error_type=error_type(type(error)),
                count=1 + (unsaid or 0),
            ),
        )

    def look(self) -> None:
        """Log how many were not logged in a minute that is over."""
        self._say(self._not_parked.overdue(), self._unanswered.overdue())

    def end(self) -> None:
        """Log how many were not logged until the end."""
        self._say(self._not_parked.rest(), self._unanswered.rest())

    def _say(self, not_parked: Iterable[Unsaid], unanswered: Iterable[Unsaid]) -> None:
        for count, kind, _ in not_parked:
            logger.error(
                "%d more calls could not be parked, as one that was logged: %s",
                count,
                kind,
                extra=fields("call.not_parked", error_type=kind, count=count),
            )
        for count, kind, where in unanswered:
            logger.error(
                "%d more calls are parked without a reply, as one that was logged: %s at %s",
                count,
                kind,
                where or "an unknown place",
                extra=fields("call.unanswered", error_type=kind, count=count),
            )


def _level(unsaid: int | None) -> int:
    return logging.DEBUG if unsaid is None else logging.ERROR


def _more(unsaid: int | None) -> str:
    return f" ({unsaid} more like it were not logged)" if unsaid else ""
