"""What is reported of each message that was settled: to listeners, and to the log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from fusewire.parking._decisions import Dead, Delay, Done, Park
from fusewire.parking._events import MessageEvent, MessageOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers import Station
    from fusewire.parking._decisions import Verdict
    from fusewire.parking._events import Listeners
    from fusewire.parking._in_flight import InFlight

logger = logging.getLogger("fusewire.parking")


class Settlements:
    """Reports settlements.

    Args:
        listeners: called with an event for each; none is made while there are none.
        lane_of: returns the lane of a dependency.
        dead: the station of dead messages.
        monotonic: the clock of :attr:`InFlight.since`.
        now: the wall clock, in seconds since 1970.
    """

    def __init__(
        self,
        listeners: Listeners,
        *,
        lane_of: Callable[[str], str],
        dead: Station,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._listeners = listeners
        self._lane_of = lane_of
        self._dead = dead
        self._monotonic = monotonic
        self._now = now
        self.heads: dict[str, tuple[int, float]] = {}
        """By lane: when its head was first parked, in milliseconds since 1970, and when it was
        taken, in monotonic seconds."""

    def taken(self, item: InFlight) -> None:
        """Note that `item` was taken from the head of a lane."""
        parked_at = item.history.first_parked_at_ms
        if parked_at is not None:
            self.heads[item.receiver.lane] = parked_at, self._monotonic()

    def settled(self, item: InFlight, verdict: Verdict) -> None:
        """Report that `verdict` was carried out for `item`."""
        history = item.history if isinstance(verdict, Done) else verdict.history
        if isinstance(verdict, Dead):
            logger.error(
                "operation %s is dead (%s) and waits in %s: %s %s",
                history.operation_id,
                history.reason,
                self._dead,
                history.exception,
                history.exception_message,
            )
        if self._listeners:
            outcome = _outcome_of(item, verdict)
            self._listeners.tell(self._event(outcome, history.reason, item, verdict))
        if isinstance(verdict, Done) and history.doubtful_keys:
            logger.warning(
                "operation %s was handled without its call %s, which may have had an effect in an "
                "earlier attempt: if its request holds a time or a random value, it was made again "
                "under another idempotency key, and may have taken effect twice. Give such calls "
                "an idempotency-key of their own, made of the message's id",
                history.operation_id,
                history.doubtful_keys,
            )
            if self._listeners:
                in_doubt = MessageOutcome.IN_DOUBT
                self._listeners.tell(self._event(in_doubt, "key_not_sent_again", item, verdict))

    def _event(
        self, outcome: MessageOutcome, reason: str, item: InFlight, verdict: Verdict
    ) -> MessageEvent:
        done = isinstance(verdict, Done)
        history = item.history if isinstance(verdict, Done) else verdict.history
        lane = item.receiver.lane
        if isinstance(verdict, Park):
            lane = self._lane_of(history.dependency)
        first_parked = history.first_parked_at_ms
        now = self._now()
        return MessageEvent(
            outcome,
            history.operation_id,
            history.queue,
            history.dependency,
            reason,
            lane=lane,
            attempts=history.attempts,
            outage_attempts=history.outage_attempts,
            times_parked=history.times_parked,
            first_parked_at=None if first_parked is None else first_parked / 1000,
            taken_at=now - (self._monotonic() - item.since),
            ended_at=now,
            duration=item.seconds,
            error_type="" if done else history.exception,
            error_status="" if done else item.status,
        )


def _outcome_of(item: InFlight, verdict: Verdict) -> MessageOutcome:
    match verdict:
        case Done():
            parked = item.history.times_parked
            return MessageOutcome.REPLAYED if parked else MessageOutcome.HANDLED
        case Park():
            return MessageOutcome.PARKED
        case Delay(history):
            asked = history.times_postponed > item.history.times_postponed
            return MessageOutcome.POSTPONED if asked else MessageOutcome.DELAYED
        case Dead():
            return MessageOutcome.DEAD
