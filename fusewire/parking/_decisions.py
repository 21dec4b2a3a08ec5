"""What becomes of a message: pure decisions, no I/O."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire.parking._error_summary import summarize_error
from fusewire.parking._failures import REFUSED

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Sequence

    from fusewire.parking._error_summary import ErrorSummary
    from fusewire.parking._errors import Retry
    from fusewire.parking._failures import Failure
    from fusewire.parking._history import History
    from fusewire.parking._settings import RetryPolicy


@dataclass(frozen=True, slots=True)
class Done:
    """The handler has dealt with it."""


@dataclass(frozen=True, slots=True)
class Park:
    """It waits for `record.dependency`."""

    history: History


@dataclass(frozen=True, slots=True)
class Delay:
    """It comes back to its source after `delay` seconds."""

    history: History
    delay: float


@dataclass(frozen=True, slots=True)
class Dead:
    """A person decides."""

    history: History


@dataclass(frozen=True, slots=True)
class Answered:
    """A stored call that has ended for good otherwise than OK, and whose caller is told so."""

    history: History


Verdict = Done | Park | Delay | Dead


@dataclass(frozen=True, slots=True)
class Recycle:
    """It is not settled: its subscription ends, and all that is in flight goes back.

    It cannot be settled, or it has waited for as long as it may.

    Attributes:
        tried: whether its handler was called, so that it is not stored again as untried.
        settled: whether it is settled itself, or may be, so that only the others go back.
        expected: whether that is how its worker waits, and no sign of trouble.
        cancelled: the cancellation that it comes from, if any.
    """

    tried: bool
    settled: bool = False
    expected: bool = False
    cancelled: asyncio.CancelledError | None = None


Ending = Verdict | Recycle

_REFUSALS_BEFORE_COUNTING = 20
"""Refusals by a server, which may be full for long, from which on a message's own are counted."""

SUBMITTED = "submitted"
"""Why a call was stored that nobody had tried: it waits for a forwarder, and for no circuit."""

CONDITION = "condition"
"""Why a message was parked that failed by a condition."""

BUSY = "busy"
"""Why a message was parked that a full server refused."""

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
        describe: returns what is kept of an error with its message.
        of_calls: whether messages store calls. One whose time is over, and that may have been sent,
            is ambiguous.
        live_calls: returns what live calls of a dependency took while it was well; empty if that is
            not known here.
        chance: numbers from 0 and below 1. By chance a message waits for a delay or the one below,
            so that what failed together does not come back together.
    """

    retry: RetryPolicy
    now: Callable[[], int]
    unrecoverable: Callable[[BaseException], bool] = lambda _error: False
    describe: Callable[[BaseException], ErrorSummary] = summarize_error
    of_calls: bool = False
    live_calls: Callable[[str], str] = lambda _dependency: ""
    chance: Callable[[], float] = random.random

    def park(self, history: History, dependency: str, reason: str, *, wait: float) -> Park:
        """Wait for `dependency`, without an attempt; it may admit again in `wait` seconds."""
        now = self.now()
        carried = history.live_calls if dependency == history.dependency else ""
        return Park(
            dataclasses.replace(
                history,
                dependency=dependency,
                live_calls=self.live_calls(dependency) or carried,
                reason=reason,
                times_parked=history.times_parked + 1,
                first_parked_at_ms=history.first_parked_at_ms or now,
                parked_at_ms=now,
                lone=0,
                # The first parking leaves it free to go round once in the same open time.
                waits_until_ms=now + round(wait * 1000) if history.times_parked else None,
            )
        )

    def dead(self, history: History, reason: str, error: BaseException | None = None) -> Dead:
        """Put it aside for a person."""
        if reason == "expired" and self.of_calls and history.first_sent_ms is not None:
            reason = "ambiguous"  # its time is over, and it may have been made
        return Dead(dataclasses.replace(self._with_error(history, error), reason=reason, lone=0))

    def refused(
        self,
        history: History,
        reason: str,
        error: BaseException | None = None,
        *,
        failed_breakers: Sequence[str] = (),
    ) -> Dead:
        """Put it aside after an attempt that said it is not to be tried again."""
        return self.dead(self._attempted(history, error, failed_breakers=failed_breakers), reason)

    def may_go_round(self, history: History) -> bool:
        """Return whether it may go to the tail of its lane: once in each open time, not more."""
        return history.waits_until_ms is None or self.now() >= history.waits_until_ms

    def expired(self, history: History) -> bool:
        """Return whether it is of no use any more."""
        has_end = history.not_after_ms is not None or self.retry.max_age is not None
        return has_end and self._too_late(history, self.now())

    def postpone(self, history: History, asked: Retry) -> Verdict:
        """Try it again at the time that the handler asked for; not an attempt."""
        now = self.now()
        due = asked.due_ms(now)
        history = dataclasses.replace(
            self._with_error(history, asked.__cause__ or asked),
            reason="postponed",
            times_postponed=history.times_postponed + 1,
            first_postponed_at_ms=history.first_postponed_at_ms or now,
            postponed_until_ms=due,
            lone=0,
        )
        if history.at_most_once:
            # What is delayed may come back twice.
            return self.dead(history, "ambiguous")
        if self._too_late(history, due):
            return self.dead(history, "expired")
        # A handler that asks for no wait, again and again, must not turn without a break.
        wait = (due - now) / 1000 if due > now else self.retry.delays[0]
        return Delay(history, wait)

    def not_due(self, history: History) -> Delay | None:
        """Return how a postponed message waits for the rest of its time, or None if it is due.

        Not every broker keeps every delay.
        """
        if history.postponed_until_ms is None:
            return None
        wait = history.postponed_until_ms - self.now()
        return None if wait <= 0 else Delay(history, wait / 1000)

    def held(
        self,
        history: History,
        failure: Failure,
        error: BaseException | None,
        *,
        wait: float,
        may_count: bool,
    ) -> Verdict:
        """Judge an attempt that failed as others do, so that its message is hardly to blame.

        Args:
            history: the message's history.
            failure: what it has in common with others.
            error: what the handler raised.
            wait: the seconds until its dependency may be tried again.
            may_count: whether others were handled meanwhile, so that it may be to blame after all.
        """
        refusals = history.refusals + (failure.condition == REFUSED)
        counts = may_count and not (
            failure.condition == REFUSED and refusals < _REFUSALS_BEFORE_COUNTING
        )
        history = self._attempted(
            dataclasses.replace(history, refusals=refusals),
            error,
            failed_breakers=(failure.dependency,),
            in_outage=not counts,
        )
        if history.at_most_once and not failure.without_effect:
            return self.dead(history, "ambiguous")
        if counts and history.attempts >= self.retry.max_attempts:
            return self.dead(history, "exhausted")
        if self.expired(history):
            return self.dead(history, "expired")
        if failure.condition is None:
            reason = "failed"
        else:
            # Refusals decide how fast replays follow each other. So their messages rest only when
            # that counts.
            reason = CONDITION if counts or failure.condition != REFUSED else BUSY
        return self.park(history, failure.dependency, reason, wait=wait)

    def rest(self, history: History) -> float:
        """Return the seconds for which what failed by a condition is not tried again.

        Its lane may be open to others, or it would be tried without a break and soon be dead.
        """
        if history.reason != CONDITION or history.failed_at_ms is None:
            return 0.0
        delays = self.retry.delays
        delay = delays[min(max(history.attempts, 1), len(delays)) - 1]
        return min(max(delay - (self.now() - history.failed_at_ms) / 1000, 0.0), delay)

    def suspected(self, history: History, left: Collection[int]) -> Verdict:
        """Return where a message goes that came back and may have killed its process.

        Counts of returns rise for all that was in flight with it, so they only arouse suspicion:
        it is then handled with nothing else in flight, and only attempts that began so and did not
        end count.

        Args:
            history: the message's history.
            left: the numbers of those attempts.
        """
        free = [number for number in range(1, CRASHES + 1) if number not in left]
        if not free:
            return self.dead(history, "crashed")
        return self.alone(dataclasses.replace(history, lone=free[0]))

    def alone(self, history: History) -> Delay:
        """Let it come back by way of a delay, to be handled with nothing else in flight."""
        # By one of two delays, so that those suspected together do not all come back together.
        return Delay(dataclasses.replace(history, reason="suspected"), self._delay(2))

    def failed(
        self,
        history: History,
        error: BaseException,
        *,
        waiting_for: tuple[str, float] | None,
        failed_breakers: Sequence[str],
        in_outage: bool,
    ) -> Verdict:
        """Judge a failed attempt.

        Args:
            history: the message's history.
            error: what the handler raised.
            waiting_for: the first of its dependencies whose circuit is not closed, if any, and the
                seconds until that may admit again.
            failed_breakers: the breakers whose calls failed in this attempt.
            in_outage: whether a circuit was not closed when the attempt began, so that it was a
                probe, or refused a call of it.
        """
        history = self._attempted(
            history, error, failed_breakers=failed_breakers, in_outage=in_outage
        )
        if history.at_most_once:
            # Whatever was raised, and by whatever stands around the call: it may have been made.
            return self.dead(history, "ambiguous")
        if history.attempts >= self.retry.max_attempts:
            return self.dead(history, "exhausted")
        if self.expired(history):
            return self.dead(history, "expired")
        if waiting_for is not None:
            dependency, wait = waiting_for
            return self.park(history, dependency, "failed", wait=wait)
        return Delay(dataclasses.replace(history, reason="failed"), self._delay(history.attempts))

    def _attempted(
        self,
        history: History,
        error: BaseException | None,
        *,
        failed_breakers: Sequence[str],
        in_outage: bool = False,
    ) -> History:
        now = self.now()
        return dataclasses.replace(
            self._with_error(history, error),
            dependency=failed_breakers[0] if failed_breakers else history.dependency,
            attempts=history.attempts + (not in_outage),
            outage_attempts=history.outage_attempts + in_outage,
            first_failed_at_ms=history.first_failed_at_ms or now,
            failed_at_ms=now,
            lone=0,
        )

    def _delay(self, attempts: int) -> float:
        delays = self.retry.delays
        step = min(max(attempts, 1), len(delays)) - 1
        # The jitter is in the choice between two, because every broker keeps exactly these.
        return delays[max(step - (self.chance() < 0.5), 0)]  # noqa: PLR2004 - even odds

    def _too_late(self, history: History, when: int) -> bool:
        if history.not_after_ms is not None and when > history.not_after_ms:
            return True
        if self.retry.max_age is None:
            return False
        times = (
            history.first_parked_at_ms,
            history.first_failed_at_ms,
            history.first_postponed_at_ms,
        )
        known = [time for time in times if time is not None]
        return bool(known) and when > min(known) + self.retry.max_age * 1000

    def _with_error(self, history: History, error: BaseException | None) -> History:
        if error is None:
            return history
        summary = self.describe(error)
        return dataclasses.replace(
            history,
            exception=summary.exception,
            exception_message=summary.message,
            stack=summary.stack,
        )
