"""One line in the log when RabbitMQ goes away, and one when it is back, however many notice.

A consumer has a subscription for each lane, and a broker two connections. All of them lose it at
once, and try again and again. What they raise meanwhile is marked as logged.
"""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

from fusewire._log_fields import fields

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("fusewire.brokers.rabbitmq")

_REPEATED = (
    "error when creating transport",
    "Cancelling cause reader exited abnormally",
    "Closing channel %r",
)
"""What aiormq (7.2.4) logs, some of it with tracebacks, and raises or hands to close callbacks
besides."""


class Reachability:
    """Whether RabbitMQ can be reached, as the connections of one broker find it.

    Args:
        where: its addresses, without credentials.
        monotonic: the clock.

    Attributes:
        losses: how often something failed because it could not be reached.
    """

    def __init__(self, where: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._where = where
        self._monotonic = monotonic
        self.losses = 0
        self._known = False
        self._since: float | None = None

    def lost(self, why: object) -> bool:
        """Note that it cannot be reached; return whether the log says so, now or already.

        Before it was reached for the first time the log does not: the caller that enters a broker
        gets the error.
        """
        self.losses += 1
        if self._known and self._since is None:
            self._since = self._monotonic()
            logger.warning(
                "RabbitMQ at %s is away (%s); it is tried again until it is back",
                self._where,
                str(why) or type(why).__name__,
                extra=fields("broker.lost", broker=self._where),
            )
        return self._known

    def reached(self) -> None:
        """Note that it can be reached."""
        self._known = True
        if self._since is not None:
            away, self._since = self._monotonic() - self._since, None
            logger.info(
                "RabbitMQ at %s is back after %.1f s",
                self._where,
                away,
                extra=fields("broker.back", broker=self._where, seconds=round(away, 3)),
            )


connecting: ContextVar[bool] = ContextVar("connecting", default=False)
"""Whether it is Fusewire that connects, or opens a channel. The tasks made for it inherit it."""


class _Once(logging.Filter):
    """Leaves to DEBUG what the client logs of our connections and :class:`Reachability` reports."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not connecting.get() or not str(record.msg).startswith(_REPEATED):
            return True
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


for _name in ("aiormq.connection", "aiormq.channel"):
    logging.getLogger(_name).addFilter(_Once())
