"""Delivering events to listeners: in order, outside every lock, whatever they raise."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from fusewire._throttle import Throttle
from fusewire._validation import PLAIN_FUNCTION, check, invalid
from fusewire.breaker._events import CallEvent, CallEventsDropped, Event

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("fusewire.breaker")

MAX_TIME_FOR_OTHERS = 0.1
"""Seconds that a caller spends at most on events that other callers have caused."""

MAX_CALL_EVENTS = 1000
"""Call events that wait at most. One more drops the oldest."""

_SECONDS_BETWEEN_WARNINGS = 60.0

_Queued = tuple[int, Event, "tuple[ListenerEntry, ...] | None"]
"""An event's number, the event, and the listeners that get it; None for all."""


@dataclass(frozen=True, slots=True, eq=False)
class ListenerEntry:
    """A listener, and the kinds of events that it gets. A listener may have several entries.

    Raises:
        SettingsError: no event could ever reach it.
    """

    on_event: Callable[[Any], None]
    kinds: tuple[type[Event], ...]

    @classmethod
    def of(
        cls, listener: Callable[[Any], None], kinds: type[Event] | tuple[type[Event], ...]
    ) -> ListenerEntry:
        """Make the entry of a listener that gets one kind of events, or several."""
        return cls(listener, kinds if isinstance(kinds, tuple) else (kinds,))

    def __post_init__(self) -> None:
        """Refuse now what would otherwise fail, or do nothing, at the first event."""
        check("listener", self.on_event, PLAIN_FUNCTION)
        kinds: tuple[object, ...] = self.kinds
        if not kinds or not all(
            isinstance(kind, type) and issubclass(kind, Event) for kind in kinds
        ):
            raise invalid("kinds", "a class of events or a tuple of such", kinds)


class Listeners:
    """Queues of events, and the listeners that get them.

    Events are put while the circuit's lock is held, so their order is that of the changes. They are
    delivered after the lock is released, by one thread at a time: other threads leave their events
    to it. So a listener may use the breaker, and never gets events out of order.

    A caller delivers the events of its own change. For a limited time it also delivers events that
    were queued before them or arrive meanwhile. The rest waits for the next caller, so slow
    listeners do not keep one caller busy for all others. The queue of call events would then grow
    without limit, so the oldest of them are dropped. Other events are rare and never dropped.

    Attributes:
        number: the number of the event that was put last.
        wants_call_events: whether a listener asks for per-call events, which slow every call down.
        changes: events to deliver, other than call events.
        calls: call events to deliver.
        left: whether the last delivery left events to the next caller.
        dropped: call events that were dropped.
    """

    __slots__ = (
        "_clock",
        "_failures",
        "_listeners",
        "_log_again_at",
        "_logged",
        "_name",
        "_reported",
        "_turn",
        "calls",
        "changes",
        "dropped",
        "left",
        "number",
        "wants_call_events",
    )

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        self._listeners: tuple[ListenerEntry, ...] = ()
        # Which caller delivers: its token, under one key. `setdefault` is one step, so this needs
        # no lock, which an exception or a fork could leave locked.
        self._turn: dict[str, object] = {}
        self.number = 0
        self.wants_call_events = False
        # Lists, because they are empty most of the time and an empty deque takes 760 bytes.
        self.changes: list[_Queued] = []
        self.calls: list[_Queued] = []
        self.left = False
        self.dropped = 0
        # How many dropped events the listeners have been told of, and the log has reported.
        self._reported = self._logged = 0
        self._log_again_at = -math.inf
        self._failures: Throttle | None = None

    def add(self, entry: ListenerEntry) -> None:
        """Deliver events to a listener from now on."""
        self._replace((*self._listeners, entry))

    def remove(self, entry: ListenerEntry) -> None:
        """End what :meth:`add` began. Ending it twice is no error."""
        self._replace(tuple(each for each in self._listeners if each is not entry))

    def holds(self, entry: ListenerEntry) -> bool:
        """Return whether `entry` was added and not removed."""
        return entry in self._listeners

    def put(self, event: Event, only: tuple[ListenerEntry, ...] | None = None) -> None:
        """Queue `event` for delivery to all listeners, or to those of `only`."""
        if not self._listeners and only is None:
            return
        self.number += 1
        queued = (self.number, event, only)
        if not isinstance(event, CallEvent):
            self.changes.append(queued)
            return
        if len(self.calls) >= MAX_CALL_EVENTS:
            self.calls.pop(0)
            self.dropped += 1
        self.calls.append(queued)

    def deliver(self, before: int, last: int) -> None:
        """Deliver what is queued, unless another thread is delivering: then that thread does it.

        Args:
            before: the number of the event that was put last before the caller's own.
            last: the number of the caller's last.
        """
        if self.dropped != self._logged:
            self._log_dropped()
        token = object()
        # Checked again after each turn: otherwise nobody would deliver an event put meanwhile.
        while self.changes or self.calls:
            try:
                if self._turn.setdefault("turn", token) is not token:
                    return
                left = self.left = self._deliver_own_and_some(before, last)
            finally:
                if self._turn.get("turn") is token:
                    del self._turn["turn"]
            if left:
                return

    def drop(self) -> None:
        """Drop what is queued, and whose turn it is: in a forked child, the parent delivers it."""
        self.changes.clear()
        self.calls.clear()
        self._turn.clear()
        self.left = False

    def _deliver_own_and_some(self, before: int, last: int) -> bool:
        """Deliver until nothing is left or the time for others is up. Return whether it is up."""
        time = MAX_TIME_FOR_OTHERS
        while (queued := self._next()) is not None:
            number, event, only = queued
            if before < number <= last:
                self._notify(event, only)
                continue
            if time <= 0:
                self._put_back(queued)
                return True
            began = self._clock()
            self._notify(event, only)
            time -= self._clock() - began
        return False

    def _next(self) -> _Queued | None:
        """Remove and return the event that was put first; None if there is none."""
        if not self.calls:
            return self.changes.pop(0) if self.changes else None
        # Taken before it is compared: another thread may drop it at any time.
        queued = self.calls.pop(0)
        if not self.changes or queued[0] < self.changes[0][0]:
            return queued
        self._put_back(queued)
        return self.changes.pop(0)

    def _put_back(self, queued: _Queued) -> None:
        (self.calls if isinstance(queued[1], CallEvent) else self.changes).insert(0, queued)

    def _log_dropped(self) -> None:
        now = self._clock()
        if now < self._log_again_at:
            return
        self._log_again_at = now + _SECONDS_BETWEEN_WARNINGS
        dropped = self.dropped
        count, self._logged = dropped - self._logged, dropped
        logger.warning(
            "the listeners of circuit %r take longer than its calls, so call events are dropped "
            "(%d since this was last logged); changes of its state are kept. Let the listeners do "
            "less, or pass the events to a thread of your own",
            self._name,
            count,
        )

    def _replace(self, listeners: tuple[ListenerEntry, ...]) -> None:
        self._listeners = listeners
        self.wants_call_events = any(
            issubclass(kind, CallEvent) or issubclass(CallEvent, kind)
            for entry in listeners
            for kind in entry.kinds
        )

    def _notify(self, event: Event, only: tuple[ListenerEntry, ...] | None) -> None:
        if isinstance(event, CallEvent) and self._reported != self.dropped:
            dropped = self.dropped
            count, self._reported = dropped - self._reported, dropped
            self._notify_each(CallEventsDropped(self._name, count), None)
        self._notify_each(event, only)

    def _notify_each(self, event: Event, only: tuple[ListenerEntry, ...] | None) -> None:
        for entry in self._listeners if only is None else only:
            if isinstance(event, entry.kinds):
                try:
                    result: object = entry.on_event(event)  # type: ignore[func-returns-value] # a wrong one may
                    if type(result) is CoroutineType:
                        result.close()
                        raise TypeError(  # noqa: TRY301 - logged as what else it raises is
                            "a listener must be a plain function, but this one returned a "
                            f"coroutine, which nobody awaits: {entry.on_event!r}"
                        )
                except (Exception, SystemExit) as error:
                    if self._failures is None:
                        self._failures = Throttle()
                    if (more := self._failures.more(error)) is not None:
                        logger.exception(
                            "a listener of circuit %r failed on %r%s", event.name, event, more
                        )
