"""What becomes of a message: pure decisions, no I/O."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire.parking._failures import REFUSED
from fusewire.parking.story import story_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from fusewire.parking._failures import Failure
    from fusewire.parking._settings import RetryPolicy
    from fusewire.parking.errors import Retry
    from fusewire.parking.record import Record


@dataclass(frozen=True, slots=True)
class Done:
    """The handler has dealt with it."""


@dataclass(frozen=True, slots=True)
class Park:
    """It waits for `record.dependency`."""

    record: Record


@dataclass(frozen=True, slots=True)
class Delay:
    """It comes back to its source after `delay` seconds."""

    record: Record
    delay: float


@dataclass(frozen=True, slots=True)
class Dead:
    """A person decides."""

    record: Record


Verdict = Done | Park | Delay | Dead

_REFUSALS_BEFORE_COUNTING = 20
"""Refusals by a server, which may be full for long, from which on a message's own are counted."""

CONDITION = "condition"
"""Why a message was parked that failed by a condition."""

CRASHES = 3
"""Attempts by itself that began and did not end, after which a message is dead."""


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """What becomes of failed attempts.

    Attributes:
        retry: the user's policy. Probes, made while the circuit is not closed, are not among the
            attempts that it limits, or a long outage would kill what waits for its end.
        now: the wall clock in milliseconds since 1970, for the times that people read.
        unrecoverable: returns whether an error makes its message dead at once.
        chance: numbers from 0 and below 1. By chance a message waits for a delay or the one below,
            so that what failed together does not come back together.
    """

    retry: RetryPolicy
    now: Callable[[], int]
    unrecoverable: Callable[[BaseException], bool] = lambda _error: False
    chance: Callable[[], float] = random.random

    def park(self, record: Record, dependency: str, reason: str, *, wait: float) -> Park:
        """Wait for `dependency`, without an attempt; it may admit again in `wait` seconds."""
        now = self.now()
        return Park(
            dataclasses.replace(
                record,
                dependency=dependency,
                reason=reason,
                times_parked=record.times_parked + 1,
                first_parked_at_ms=record.first_parked_at_ms or now,
                parked_at_ms=now,
                lone=0,
                # The first parking leaves it free to go round once in the same open time.
                waits_until_ms=now + round(wait * 1000) if record.times_parked else None,
            )
        )

    def dead(self, record: Record, reason: str, error: BaseException | None = None) -> Dead:
        """Put it aside for a person."""
        return Dead(dataclasses.replace(_told(record, error), reason=reason, lone=0))

    def refused(
        self,
        record: Record,
        reason: str,
        error: BaseException | None = None,
        *,
        blame: Sequence[str] = (),
    ) -> Dead:
        """Put it aside after an attempt that said it is not to be tried again."""
        return self.dead(self._attempted(record, error, blame=blame), reason)

    def may_go_round(self, record: Record) -> bool:
        """Tell whether it may go to the tail of its lane: once in each open time, not more."""
        return record.waits_until_ms is None or self.now() >= record.waits_until_ms

    def expired(self, record: Record) -> bool:
        """Tell whether it is of no use any more."""
        return self._too_late(record, self.now())

    def postpone(self, record: Record, asked: Retry) -> Verdict:
        """Try it again at the time that the handler asked for; not an attempt."""
        now = self.now()
        due = asked.due_ms(now)
        record = dataclasses.replace(
            _told(record, asked.__cause__ or asked),
            reason="postponed",
            times_postponed=record.times_postponed + 1,
            first_postponed_at_ms=record.first_postponed_at_ms or now,
            postponed_until_ms=due,
            lone=0,
        )
        if record.at_most_once:
            # What is delayed may come back twice.
            return self.dead(record, "ambiguous")
        if self._too_late(record, due):
            return self.dead(record, "expired")
        return Delay(record, (due - now) / 1000)

    def not_due(self, record: Record) -> Delay | None:
        """Return how a postponed message waits for the rest of its time, or None if it is due.

        Not every broker keeps every delay.
        """
        due, now = record.postponed_until_ms, self.now()
        return None if due is None or due <= now else Delay(record, (due - now) / 1000)

    def held(
        self,
        record: Record,
        failure: Failure,
        error: BaseException | None,
        *,
        wait: float,
        may_count: bool,
    ) -> Verdict:
        """Judge an attempt that failed as others do, so that its message is hardly to blame.

        Args:
            record: the message's history.
            failure: what it has in common with others.
            error: what the handler raised.
            wait: the seconds until its dependency may be tried again.
            may_count: whether others were handled meanwhile, so that it may be to blame after all.
        """
        refusals = record.refusals + (failure.condition == REFUSED)
        counts = may_count and not (
            failure.condition == REFUSED and refusals < _REFUSALS_BEFORE_COUNTING
        )
        record = self._attempted(
            dataclasses.replace(record, refusals=refusals),
            error,
            blame=(failure.dependency,),
            in_outage=not counts,
        )
        if record.at_most_once and not failure.without_effect:
            return self.dead(record, "ambiguous")
        if counts and record.attempts >= self.retry.max_attempts:
            return self.dead(record, "exhausted")
        if self.expired(record):
            return self.dead(record, "expired")
        reason = "failed" if failure.condition is None else CONDITION
        return self.park(record, failure.dependency, reason, wait=wait)

    def rest(self, record: Record) -> float:
        """Return the seconds for which what failed by a condition is not tried again.

        Its lane may be open to others, or it would be tried without a break and soon be dead.
        """
        if record.reason != CONDITION or record.failed_at_ms is None:
            return 0.0
        delays = self.retry.delays
        delay = delays[min(max(record.attempts, 1), len(delays)) - 1]
        return min(max(delay - (self.now() - record.failed_at_ms) / 1000, 0.0), delay)

    def suspected(self, record: Record, left: Collection[int]) -> Verdict:
        """Return where a message goes that came back and may have killed its process.

        Counts of returns rise for all that was in flight with it, so they only arouse suspicion:
        it is then handled with nothing else in flight, and only attempts that began so and did not
        end count.

        Args:
            record: the message's history.
            left: the numbers of those attempts.
        """
        free = [number for number in range(1, CRASHES + 1) if number not in left]
        if not free:
            return self.dead(record, "crashed")
        return self.alone(dataclasses.replace(record, lone=free[0]))

    def alone(self, record: Record) -> Delay:
        """Let it come back by way of a delay, to be handled with nothing else in flight."""
        # By one of two delays, so that those suspected together do not all come back together.
        return Delay(dataclasses.replace(record, reason="suspected"), self._delay(2))

    def failed(
        self,
        record: Record,
        error: BaseException,
        *,
        waiting_for: tuple[str, float] | None,
        blame: Sequence[str],
        in_outage: bool,
    ) -> Verdict:
        """Judge a failed attempt.

        Args:
            record: the message's history.
            error: what the handler raised.
            waiting_for: the first of its dependencies whose circuit is not closed, if any, and the
                seconds until that may admit again.
            blame: the breakers whose calls failed in this attempt.
            in_outage: whether a circuit was not closed when the attempt began: it was a probe.
        """
        record = self._attempted(record, error, blame=blame, in_outage=in_outage)
        if record.at_most_once:
            # Whatever was raised, and by whatever stands around the call: it may have been made.
            return self.dead(record, "ambiguous")
        if record.attempts >= self.retry.max_attempts:
            return self.dead(record, "exhausted")
        if self.expired(record):
            return self.dead(record, "expired")
        if waiting_for is not None:
            dependency, wait = waiting_for
            return self.park(record, dependency, "failed", wait=wait)
        return Delay(dataclasses.replace(record, reason="failed"), self._delay(record.attempts))

    def _attempted(
        self,
        record: Record,
        error: BaseException | None,
        *,
        blame: Sequence[str],
        in_outage: bool = False,
    ) -> Record:
        now = self.now()
        return dataclasses.replace(
            _told(record, error),
            dependency=blame[0] if blame else record.dependency,
            attempts=record.attempts + (not in_outage),
            outage_attempts=record.outage_attempts + in_outage,
            first_failed_at_ms=record.first_failed_at_ms or now,
            failed_at_ms=now,
            lone=0,
        )

    def _delay(self, attempts: int) -> float:
        delays = self.retry.delays
        step = min(max(attempts, 1), len(delays)) - 1
        # The jitter is in the choice between two, because every broker keeps exactly these.
        return delays[max(step - (self.chance() < 0.5), 0)]  # noqa: PLR2004 - even odds

    def _too_late(self, record: Record, when: int) -> bool:
        if record.not_after_ms is not None and when > record.not_after_ms:
            return True
        if self.retry.max_age is None:
            return False
        times = (record.first_parked_at_ms, record.first_failed_at_ms, record.first_postponed_at_ms)
        known = [time for time in times if time is not None]
        return bool(known) and when > min(known) + self.retry.max_age * 1000


def _told(record: Record, error: BaseException | None) -> Record:
    if error is None:
        return record
    story = story_of(error)
    return dataclasses.replace(
        record, exception=story.exception, exception_message=story.message, stack=story.stack
    )
