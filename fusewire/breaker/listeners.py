"""Telling listeners what happened: in order, outside every lock, whatever they raise."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire.breaker.events import CallEvent, Event

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Hearing:
    """A listener, and what it wants to hear. The same one may come twice, for other events."""

    listener: Callable[[Event], None]
    kinds: tuple[type[Event], ...]


class Listeners:
    """A queue of events and those who want to hear them.

    Events are put while the circuit's lock is held, so their order is that of the changes. They are
    delivered after it is released, by one thread at a time: who finds a delivery under way leaves
    its events to it. So a listener may use the breaker, and never hears events out of order.

    Attributes:
        hear_calls: whether anyone wants events of single calls, which cost time on each of them.
        queue: what is not delivered yet.
    """

    __slots__ = ("_delivering", "_listeners", "hear_calls", "queue")

    def __init__(self) -> None:
        self._listeners: tuple[Hearing, ...] = ()
        self._delivering = threading.Lock()
        self.hear_calls = False
        self.queue: list[Event] = []

    def add(self, hearing: Hearing) -> None:
        """Tell a listener of the events that it wants, from now on."""
        self._replace((*self._listeners, hearing))

    def remove(self, hearing: Hearing) -> None:
        """End what :meth:`add` began; to end it twice is no error."""
        self._replace(tuple(each for each in self._listeners if each is not hearing))

    def put(self, event: Event) -> None:
        """Queue `event` for delivery."""
        if self._listeners:
            self.queue.append(event)

    def deliver(self) -> None:
        """Deliver what is queued, unless a delivery is under way, which then delivers it."""
        # Looked at again after unlocking: an event put meanwhile would have nobody to deliver it.
        while self.queue and self._delivering.acquire(blocking=False):
            try:
                while self.queue:
                    self._tell(self.queue.pop(0))
            finally:
                self._delivering.release()

    def _replace(self, listeners: tuple[Hearing, ...]) -> None:
        self._listeners = listeners
        self.hear_calls = any(
            issubclass(kind, CallEvent) or issubclass(CallEvent, kind)
            for hearing in listeners
            for kind in hearing.kinds
        )

    def _tell(self, event: Event) -> None:
        for hearing in self._listeners:
            if isinstance(event, hearing.kinds):
                try:
                    hearing.listener(event)
                except Exception:
                    logger.exception("a listener of circuit %r failed on %r", event.name, event)
