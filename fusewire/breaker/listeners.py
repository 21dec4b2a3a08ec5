"""Telling listeners what happened: in order, outside every lock, whatever they raise."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker.events import Event

logger = logging.getLogger(__name__)


class Listeners:
    """A queue of events and those who want to hear them.

    Events are put while the circuit's lock is held, so their order is that of the changes. They are
    delivered after it is released, by one thread at a time: who finds a delivery under way leaves
    its events to it. So a listener may use the breaker, and never hears events out of order.
    """

    __slots__ = ("_delivering", "_listeners", "_queue")

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Event], None], ...] = ()
        self._queue: deque[Event] = deque()
        self._delivering = threading.Lock()

    def __bool__(self) -> bool:
        """Tell whether anyone listens."""
        return bool(self._listeners)

    def add(self, listener: Callable[[Event], None]) -> None:
        """Tell `listener` of events from now on."""
        self._listeners = (*self._listeners, listener)

    def remove(self, listener: Callable[[Event], None]) -> None:
        """Tell `listener` no more; one that is not there is no error."""
        self._listeners = tuple(each for each in self._listeners if each is not listener)

    def put(self, event: Event) -> None:
        """Queue `event` for delivery."""
        if self._listeners:
            self._queue.append(event)

    def deliver(self) -> None:
        """Deliver what is queued, unless a delivery is under way, which then delivers it."""
        # Looked at again after unlocking: an event put meanwhile would have nobody to deliver it.
        while self._queue and self._delivering.acquire(blocking=False):
            try:
                while self._queue:
                    self._tell(self._queue.popleft())
            finally:
                self._delivering.release()

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener of circuit %r failed on %r", event.name, event)
