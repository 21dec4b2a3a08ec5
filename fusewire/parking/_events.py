"""What happened to a message, for listeners that make logs, metrics or displays of it."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fusewire._throttle import Throttle
from fusewire.parking._asking import ask
from fusewire.parking._breaker_names import check_function

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("fusewire.parking")


class MessageOutcome(StrEnum):
    """What happened to a message, after it was settled with the broker."""

    HANDLED = "handled"
    PARKED = "parked"
    REPLAYED = "replayed"
    """Handled, after it had been parked."""
    DELAYED = "delayed"
    """To be tried again after its delay; or, if its handler was not called, to wait for the rest of
    a time that it was postponed to."""
    POSTPONED = "postponed"
    """Its handler asked for another time with :class:`Retry`."""
    DEAD = "dead"
    ANSWERED = "answered"
    """A stored call that ended for good otherwise than OK, and whose outcome its caller gets."""
    IN_DOUBT = "in_doubt"
    """Handled, but a call that may have had an effect in an earlier attempt was not made again.

    Its request has another idempotency key each time, and so perhaps another effect. Told after
    HANDLED or REPLAYED."""


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """One message was settled.

    Times are seconds since 1970; `taken_at` and `ended_at` differ by what a monotonic clock showed.

    Attributes:
        outcome: what happened.
        operation_id: which unit of work.
        queue: its source queue.
        dependency: what it waits for or failed on; empty where nothing is to blame.
        reason: why, in a word: ``circuit_open``, ``failed``, ``exhausted``, ``rejected``,
            ``key_not_sent_again``, …
        lane: the lane that it was parked in, or else the one that it came from; empty for what came
            from the source queue and was not parked.
        attempts: attempts that failed and count towards ``RetryPolicy.max_attempts``.
        outage_attempts: attempts that failed and do not, because a circuit was not closed.
        times_parked: how often it was parked.
        first_parked_at: when it was parked first; None if it never was.
        taken_at: when it was received; None for a call that :class:`~fusewire.ParkedCalls` stores.
        ended_at: when it was settled.
        duration: seconds that its handler took, the last time if it was called more than once; None
            if it was not called.
        error_type: type of its last failure, as the header ``fusewire-exception`` gives it; empty
            if it did not fail, or was handled.
        error_status: name of the gRPC status of that failure, ``UNAVAILABLE`` for example; empty if
            it had none, or if its handler was not called.
    """

    outcome: MessageOutcome
    operation_id: str
    queue: str
    dependency: str = ""
    reason: str = ""
    lane: str = ""
    attempts: int = 0
    outage_attempts: int = 0
    times_parked: int = 0
    first_parked_at: float | None = None
    taken_at: float | None = None
    ended_at: float = 0.0
    duration: float | None = None
    error_type: str = ""
    error_status: str = ""

    @property
    def happening(self) -> MessageOutcome:
        """The former name of `outcome`."""
        warnings.warn(
            "MessageEvent.happening is now MessageEvent.outcome", DeprecationWarning, stacklevel=2
        )
        return self.outcome


class Listeners:
    """Called in order. One that raises changes nothing; that is logged now and then."""

    def __init__(self) -> None:
        # By an object of each: the same function may be added twice.
        self._listeners: dict[object, Callable[[MessageEvent], None]] = {}
        self._failures = Throttle()

    def __bool__(self) -> bool:
        """Return whether there are any, so that nobody makes an event that nobody wants."""
        return bool(self._listeners)

    def add(self, listener: Callable[[MessageEvent], None]) -> Callable[[], None]:
        """Add a listener and return the function that removes it.

        Raises:
            SettingsError: it is no plain function of an event.
        """
        check_function("listener", listener, "an event")
        entry = object()
        self._listeners[entry] = listener

        def remove() -> None:
            self._listeners.pop(entry, None)

        return remove

    def tell(self, event: MessageEvent) -> None:
        """Call every listener."""
        for listener in tuple(self._listeners.values()):
            try:
                ask("a listener", listener, event)
            except Exception as error:
                if (more := self._failures.more(error)) is not None:
                    logger.exception(
                        "a listener of messages raised; nothing else is changed by it%s", more
                    )
