"""Telling listeners what happened: in order, outside every lock, whatever they raise."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire._locks import interrupts_itself
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

    __slots__ = ("_listeners", "_turn", "hear_calls", "queue")

    def __init__(self) -> None:
        self._listeners: tuple[Hearing, ...] = ()
        # Whose turn it is to deliver: a token of theirs under one key. Setting what is not set is
        # one step, so this needs no lock, which an exception or a fork might leave taken.
        self._turn: dict[str, object] = {}
        self.hear_calls = False
        self.queue: deque[Event] = deque()

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
        if interrupts_itself():
            return  # it would call listeners in the midst of a change, whose thread delivers later
        token = object()
        # Looked at again after the turn: an event put meanwhile would have nobody to deliver it.
        while self.queue:
            try:
                if self._turn.setdefault("turn", token) is not token:
                    return
                while self.queue:
                    self._tell(self.queue.popleft())
            finally:
                if self._turn.get("turn") is token:
                    del self._turn["turn"]

    def forget(self) -> None:
        """Forget what is queued, and who delivers it: in a forked child, the parent does that."""
        self.queue.clear()
        self._turn.clear()

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
