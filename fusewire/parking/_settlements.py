"""What is reported of each message that was settled: to listeners, and to the log."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING

from fusewire._error_types import error_type
from fusewire._log_fields import fields
from fusewire._throttle import Throttle
from fusewire.parking._decisions import SUBMITTED, Answered, Dead, Delay, Done, Park
from fusewire.parking._events import Listeners, MessageEvent, MessageOutcome
from fusewire.parking._fault_counts import FaultCounts
from fusewire.parking._lane_log import LaneLogs
from fusewire.parking._waiting import level_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fusewire._throttle import Unsaid
    from fusewire.brokers import Topology
    from fusewire.errors import BrokerError, DeliveryLostError
    from fusewire.parking._decisions import Verdict
    from fusewire.parking._history import History
    from fusewire.parking._in_flight import InFlight

logger = logging.getLogger("fusewire.parking")


class Settlements:
    """Reports settlements.

    Args:
        topology: the queues.
        lane_of: returns the lane of a dependency.
        monotonic: the clock of :attr:`InFlight.since`.
        now: the wall clock, in seconds since 1970.

    Attributes:
        listeners: called with an event for each settlement; none is made while there are none.
        lanes: the logs of the lanes.
        faults: what went wrong with the broker.
    """

    def __init__(
        self,
        topology: Topology,
        lane_of: Callable[[str], str],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._dead = topology.dead
        self._lane_of = lane_of
        self._monotonic = monotonic
        self._now = now
        self._unsettled = Throttle(monotonic)
        self.listeners = Listeners()
        self.lanes = LaneLogs(topology, monotonic, now)
        self.faults = FaultCounts()

    def taken(self, item: InFlight) -> None:
        """Note that `item` was taken from the head of a lane."""
        parked_at = item.history.first_parked_at_ms
        if parked_at is not None:
            self.lanes[item.receiver.lane].taken(parked_at)

    def stored(self, history: History) -> None:
        """Report that a call was stored that was in no queue before."""
        lane = self._lane_of(history.dependency)
        if history.reason == SUBMITTED:
            self.lanes[lane].submitted(history.dependency)
        else:
            self.lanes[lane].parked(history.dependency, history.reason)
        if self.listeners:
            self.listeners.tell(
                MessageEvent(
                    MessageOutcome.PARKED,
                    history.operation_id,
                    history.queue,
                    history.dependency,
                    history.reason,
                    lane=lane,
                    times_parked=history.times_parked,
                    first_parked_at=_seconds(history.first_parked_at_ms),
                    ended_at=self._now(),
                )
            )

    def settled(self, item: InFlight, verdict: Verdict | Answered) -> None:
        """Report that `verdict` was carried out for `item`."""
        history = item.history if isinstance(verdict, Done) else verdict.history
        lane = item.receiver.lane
        if lane or isinstance(verdict, Park):
            self._log_lane(lane, verdict, history)
        if isinstance(verdict, Dead):
            self._log_dead(item, history)
        if self.listeners:
            self.listeners.tell(self.event(item, verdict))
        if history.doubtful_keys and isinstance(verdict, Done):
            logger.warning(
                "operation %s was handled without its call %s, which may have had an effect in an "
                "earlier attempt: if its request holds a time or a random value, it was made again "
                "under another idempotency key, and may have taken effect twice. Give such calls "
                "an idempotency-key of their own, made of the message's id",
                history.operation_id,
                history.doubtful_keys,
                extra=fields(
                    "message.in_doubt", queue=history.queue, operation_id=history.operation_id
                ),
            )
            if self.listeners:
                self.listeners.tell(
                    dataclasses.replace(
                        self.event(item, verdict),
                        outcome=MessageOutcome.IN_DOUBT,
                        reason="key_not_sent_again",
                    )
                )

    def lost(self, item: InFlight, error: DeliveryLostError) -> None:
        """Report that `item` could not be settled, and is delivered again."""
        self._log_unsettled(item, error, "operation %s: %s", item.history.operation_id, error)

    def held(self, item: InFlight, error: BrokerError, seconds: float) -> None:
        """Report that `item` could not be moved, and stays in flight for `seconds` at most."""
        self._log_unsettled(
            item,
            error,
            "operation %s cannot be moved and stays in flight for %.0f s at most: %s",
            item.history.operation_id,
            seconds,
            error,
        )

    def look(self) -> None:
        """Log how many could not be settled in a minute that is over, besides those logged."""
        self._say_unsettled(self._unsettled.overdue())

    def end(self) -> None:
        """Log how many could not be settled until the end, besides those logged."""
        self._say_unsettled(self._unsettled.rest())

    def _say_unsettled(self, counts: Iterable[Unsaid]) -> None:
        for number, kind, _ in counts:
            logger.warning(
                "%d more messages could not be settled, as one that was logged: %s",
                number,
                kind,
                extra=fields("message.unsettled", error_type=kind, count=number),
            )

    def _log_unsettled(
        self, item: InFlight, error: BrokerError, text: str, *arguments: object
    ) -> None:
        first = self._unsettled.is_first(error)
        logger.log(
            level_of(error) if first else logging.DEBUG,
            text,
            *arguments,
            extra=fields(
                "message.unsettled",
                queue=item.history.queue,
                operation_id=item.history.operation_id,
                error_type=error_type(type(error)),
                count=1,
            ),
        )

    def _log_lane(self, lane: str, verdict: Verdict | Answered, history: History) -> None:
        """Log what a settlement means for the lane that it came from, and the one it goes to."""
        match verdict:
            case Park():
                to = self._lane_of(history.dependency)
                if to != lane:
                    self.lanes[to].parked(history.dependency, history.reason)
                    if lane:
                        self.lanes[lane].left()
            case Done() | Answered():
                self.lanes[lane].replayed(history.dependency)
            case Delay():
                self.lanes[lane].left()
            case Dead():
                self.lanes[lane].died()

    def _log_dead(self, item: InFlight, history: History) -> None:
        logger.error(
            "operation %s is dead (%s) and waits in %s%s%s",
            history.operation_id,
            history.reason,
            self._dead,
            f": {history.exception}" if history.exception else "",
            f" with status {item.status}" if item.status else "",
            extra=fields(
                "message.dead",
                queue=history.queue,
                lane=item.receiver.lane or None,
                circuit=history.dependency or None,
                operation_id=history.operation_id,
                reason=history.reason,
                error_type=history.exception or None,
                error_status=item.status or None,
                attempts=history.attempts,
            ),
        )

    def event(self, item: InFlight, verdict: Verdict | Answered) -> MessageEvent:
        """Return the event of a settlement."""
        done = isinstance(verdict, Done)
        history = item.history if isinstance(verdict, Done) else verdict.history
        lane = item.receiver.lane
        if isinstance(verdict, Park):
            lane = self._lane_of(history.dependency)
        now = self._now()
        return MessageEvent(
            _outcome_of(item, verdict),
            history.operation_id,
            history.queue,
            history.dependency,
            history.reason,
            lane=lane,
            attempts=history.attempts,
            outage_attempts=history.outage_attempts,
            times_parked=history.times_parked,
            first_parked_at=_seconds(history.first_parked_at_ms),
            taken_at=now - (self._monotonic() - item.since),
            ended_at=now,
            duration=item.seconds,
            error_type="" if done else history.exception,
            error_status="" if done else item.status,
        )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _outcome_of(item: InFlight, verdict: Verdict | Answered) -> MessageOutcome:
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
        case Answered():
            return MessageOutcome.ANSWERED
