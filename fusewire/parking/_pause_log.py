"""What the log says of a consumer that pauses in order: that it does, still does, and goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fusewire._log_fields import fields

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("fusewire.parking")

_SAY_AGAIN = 60.0
"""Seconds between two lines of one pause. It lasts until a message is handled, through probes."""


class PauseLog:
    """The log of one consumer.

    Args:
        queue: the source queue.
        monotonic: the clock.
    """

    def __init__(self, queue: str, monotonic: Callable[[], float]) -> None:
        self._queue = queue
        self._monotonic = monotonic
        self._since: float | None = None
        self._said_at = 0.0

    def paused(self, circuit: str) -> None:
        """Note that nothing is consumed because `circuit` is open."""
        now = self._monotonic()
        if self._since is None:
            self._since = self._said_at = now
            logger.warning(
                "%r is not consumed while circuit %r is open",
                self._queue,
                circuit,
                extra=fields("consumer.paused", queue=self._queue, circuit=circuit),
            )
        elif now - self._said_at >= _SAY_AGAIN:
            self._said_at = now
            seconds = now - self._since
            logger.info(
                "%r is still not consumed while circuit %r is open, for %.0f s now",
                self._queue,
                circuit,
                seconds,
                extra=fields(
                    "consumer.paused",
                    queue=self._queue,
                    circuit=circuit,
                    seconds=round(seconds, 3),
                ),
            )

    def resumed(self) -> None:
        """Note that a message was handled, and its circuit is closed."""
        if self._since is None:
            return
        seconds, self._since = self._monotonic() - self._since, None
        logger.info(
            "%r is consumed again after %.1f s",
            self._queue,
            seconds,
            extra=fields("consumer.resumed", queue=self._queue, seconds=round(seconds, 3)),
        )
