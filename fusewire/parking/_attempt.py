"""The one sequence of an attempt, whichever queue the message comes from.

What the message needs, whether that admits it, whether it has to be alone, the handler, and what
becomes of it. Queues differ only in how their messages wait: each worker has a :class:`Turn` for
that.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fusewire._causes import rejection_in, status_in
from fusewire._log_fields import fields
from fusewire.errors import CircuitOpenError
from fusewire.parking import _solitude
from fusewire.parking._decisions import Done, Ending, FailurePolicy, Recycle, Verdict
from fusewire.parking._errors import INSTRUCTIONS, Reject, Retry
from fusewire.parking._failures import REFUSED, failure_of, may_have_taken_effect
from fusewire.parking._handler import Attempt

if TYPE_CHECKING:
    from fusewire.brokers import Delivery
    from fusewire.parking._circuits import Circuits
    from fusewire.parking._dependencies import Dependencies
    from fusewire.parking._failure_log import FailureLog
    from fusewire.parking._handler import HandlerRunner
    from fusewire.parking._history import History
    from fusewire.parking._in_flight import InFlight
    from fusewire.parking._marks import Marks
    from fusewire.parking._pauses import Pauses
    from fusewire.parking._survived_returns import SurvivedReturns
    from fusewire.parking._tracing import Tracing
    from fusewire.parking._unacknowledged import Unacknowledged

logger = logging.getLogger("fusewire.parking")

_POLL = 0.02
"""Seconds between looks at whether a message may begin, while one has to be alone."""


@dataclass(slots=True)
class AttemptEnd:
    """What became of an attempt that was made.

    Attributes:
        attempt: how the handler ended.
        verdict: what becomes of its message.
        needs: what the message needs.
        in_outage: whether it was a probe.
    """

    attempt: Attempt
    verdict: Verdict
    needs: tuple[str, ...]
    in_outage: bool


class Turn(Protocol):
    """How a message of one queue waits, and what its worker learns from the attempt."""

    @property
    def replays(self) -> bool:
        """Whether its attempts are replays.

        Servers may shed them first, and how fast they follow each other depends on what becomes of
        them. So refusals make nothing else wait.
        """

    def suspicion(self, delivery: Delivery) -> float:
        """Return the returns from which on `delivery` is suspected of killing its process."""

    async def admit(self, item: InFlight, needs: tuple[str, ...]) -> Ending | None:
        """Wait until `item` may begin; return how it ends if that is without an attempt."""

    def begins(self, *, in_outage: bool) -> None:
        """Note that the handler is called next, and whether as a probe."""

    async def rejected(self, item: InFlight, rejection: CircuitOpenError) -> Ending | None:
        """Wait after a circuit refused a call of the handler; or return how `item` ends instead."""

    def ended(self, item: InFlight, end: AttemptEnd) -> bool:
        """Note what became of an attempt; return whether `item` begins again in place instead."""


class AttemptSequence:
    """Tries messages and judges the attempts.

    It only looks at the breakers: the guarded call within the handler takes the one permit and
    records the one outcome.

    Args:
        policy: how failures are retried.
        circuits: the breakers that messages wait for.
        pauses: what has to wait although its circuit is closed.
        dependencies: what is declared of them.
        runner: calls the handler.
        failures: where first failures are logged.
        unacknowledged: knows which messages the handler works on.
        marks: of attempts that are made with nothing else in flight.
        survived: which returns of messages this process has survived.
        tracing: traces what the handler does.
    """

    def __init__(
        self,
        *,
        policy: FailurePolicy,
        circuits: Circuits,
        pauses: Pauses,
        dependencies: Dependencies,
        runner: HandlerRunner,
        failures: FailureLog,
        unacknowledged: Unacknowledged,
        marks: Marks,
        survived: SurvivedReturns,
        tracing: Tracing,
    ) -> None:
        self._policy = policy
        self._circuits = circuits
        self._pauses = pauses
        self._dependencies = dependencies
        self._runner = runner
        self._failures = failures
        self._unacknowledged = unacknowledged
        self._marks = marks
        self._survived = survived
        self._tracing = tracing

    async def run(self, item: InFlight, turn: Turn) -> Ending | None:
        """Try `item` once; return None if its delivery was lost while it waited.

        A rejection by a circuit is not an attempt: `turn` decides whether it waits and tries
        again.
        """
        try:
            needs = self.needs(item)
        except Exception as error:  # noqa: BLE001 - the user's depends_on
            self._failures.note(item.history, error)
            if item.history.at_most_once:  # nothing was tried, and a delay queue may give it twice
                return self._policy.dead(item.history, "malformed", error)
            return self._ordinary(item.history, Attempt(error), (), in_outage=False)
        try:
            return await self._until_called(item, turn, needs)
        except asyncio.CancelledError as error:
            # The consumer's own, and its process lives on: it can say so of what may go on record.
            if item.tried and not item.lone:
                self._tracing.end(item)
                raise
            return Recycle(tried=item.tried, cancelled=error)
        finally:
            _solitude.process.leave(item.delivery)
            if item.lone:
                await self._marks.end(item.delivery)

    async def _until_called(
        self, item: InFlight, turn: Turn, needs: tuple[str, ...]
    ) -> Ending | None:
        """Wait and call the handler, until `item` ends or its delivery is lost."""
        while True:
            ending = await self._may_begin(item, turn, needs)
            if item.delivery.lost:
                return None  # the broker delivers it again
            if ending is not None:
                return ending
            called = await self._call(item, turn, needs)
            if called is None:
                continue
            if not isinstance(called, CircuitOpenError):
                return called
            needs = tuple(dict.fromkeys((called.name, *needs)))
            ending = await turn.rejected(item, called)
            if ending is not None:
                return ending

    async def ready(self) -> None:
        """Say first, before anything is received, what this process has survived."""
        await self._marks.pay()

    def needs(self, item: InFlight) -> tuple[str, ...]:
        """Return what `item` needs: what it waited for, then what is declared."""
        declared = self._dependencies.of(item.view)
        waited_for = item.history.dependency
        if not waited_for or (waited_for,) == declared:
            return declared
        return tuple(dict.fromkeys((waited_for, *declared)))

    def park(self, history: History, dependency: str) -> Verdict:
        """Wait for `dependency`; not an attempt."""
        wait = self._circuits.wait(dependency)
        return self._policy.park(history, dependency, "circuit_open", wait=wait)

    async def _may_begin(self, item: InFlight, turn: Turn, needs: tuple[str, ...]) -> Ending | None:
        """Wait until `item` may begin or is lost; return how it ends if without an attempt.

        Of one that is lost, what is returned says nothing.
        """
        while True:
            ending = await turn.admit(item, needs)
            if ending is None and item.delivery.returned and not item.survived:
                ending = await self._suspect(item, turn)
            if ending is not None:
                return ending
            if item.lone:
                return await self._be_alone(item)
            if _solitude.process.enter(item.delivery):
                return None
            await asyncio.sleep(_POLL)
            if item.receiver.ending or item.delivery.lost:
                return Recycle(tried=False)

    async def _call(
        self, item: InFlight, turn: Turn, needs: tuple[str, ...]
    ) -> Ending | CircuitOpenError | None:
        """Call the handler once.

        Returns:
            how `item` ends, the rejection if a circuit refused its call, or None if it begins
            again.
        """
        probes = self._pauses.begin(needs)
        in_outage = self._circuits.first_not_closed(needs) is not None
        turn.begins(in_outage=in_outage or bool(probes))
        tried_before, item.tried = item.tried, True
        self._unacknowledged.begin(item, item.delivery.message)
        try:
            with self._tracing.attempt(item):
                attempt = await self._runner.run(
                    item.fresh_view(), item.history, replay=turn.replays
                )
            if isinstance(attempt, Recycle):
                return attempt
            item.seconds = attempt.seconds
            error = attempt.error or attempt.rejected_because
            item.status = "" if error is None else status_in(error) or ""
            item.history = item.history.with_doubtful_keys(attempt.doubtful_keys)
            if attempt.error is not None:  # what is done leaves no record
                item.history = item.history.sent_first(attempt.first_sent_ms)
            twice = item.history.at_most_once and may_have_taken_effect(attempt)
            if attempt.rejection is not None and not twice:
                item.tried = tried_before
                return attempt.rejection
            self._tracing.failed(item, error)
            verdict = self._judge(item, attempt, needs, turn, in_outage=in_outage, probes=probes)
        finally:
            self._unacknowledged.end(item)
            self._pauses.release(probes)
            if not item.lone:
                _solitude.process.leave(item.delivery)
        end = AttemptEnd(attempt, verdict, needs, in_outage or bool(probes))
        return None if turn.ended(item, end) else verdict

    async def _suspect(self, item: InFlight, turn: Turn) -> Verdict | None:
        """Return where `item`, which came back, goes if it may have killed its process."""
        delivery, operation_id = item.delivery, item.history.operation_id
        returns = self._survived.unexplained(delivery)
        if returns <= 0:
            return None
        if item.lone:
            return self._policy.suspected(item.history, await self._marks.left(operation_id))
        if returns < turn.suspicion(delivery):
            return None
        logger.warning(
            "operation %s came back unsettled and may kill its process: it is handled with nothing "
            "else in flight, until it has ended or has killed its process three times",
            operation_id,
            extra=fields("message.suspected", queue=item.history.queue, operation_id=operation_id),
        )
        await self._marks.clear(operation_id)  # of an earlier suspicion
        return self._policy.suspected(item.history, ())

    async def _be_alone(self, item: InFlight) -> Ending | None:
        """Wait until nothing else is in flight; or return how that is tried later instead."""
        if not _solitude.process.claim(item.delivery):
            return self._policy.alone(item.history)
        while not item.delivery.lost and not (alone := _solitude.process.alone()):
            if item.receiver.ending:
                return Recycle(tried=False)
            if alone is None:
                logger.warning(
                    "operation %s has to be handled with nothing else in flight, and other "
                    "handlers do not end: it waits",
                    item.history.operation_id,
                    extra=fields("message.suspected", operation_id=item.history.operation_id),
                )
                return self._policy.alone(item.history)
            await asyncio.sleep(_POLL)
        if not item.delivery.lost:
            await self._marks.begin(item)
        return None

    def _judge(
        self,
        item: InFlight,
        attempt: Attempt,
        needs: tuple[str, ...],
        turn: Turn,
        *,
        in_outage: bool,
        probes: tuple[str, ...],
    ) -> Verdict:
        error, history = attempt.error, item.history
        if error is None and not attempt.rejected:
            self._pauses.succeeded((*needs, *attempt.succeeded))
            return Done()
        if error is not None and not isinstance(error, INSTRUCTIONS):
            self._failures.note(history, error)
        if isinstance(error, Retry):
            return self._policy.postpone(history, error)
        failure = failure_of(attempt, history)
        others_succeed = self._pauses.handled_since(failure.dependency, history.failed_at_ms)
        # A circuit that is not closed has its own waits, which end when the dependency is back. So
        # has a replay that is refused, unless it was to show whether a pause may end.
        own_wait = (
            self._circuits.first_not_closed((failure.dependency,)) is not None
            if failure.condition is None
            else failure.condition == REFUSED and turn.replays and not probes
        )
        waits = not own_wait and self._pauses.failed(failure, history.operation_id, probes=probes)
        if failure.condition is None and (not waits or history.at_most_once):
            return self._ordinary(history, attempt, needs, in_outage=in_outage)
        return self._policy.held(
            history,
            failure,
            error or attempt.rejected_because,
            wait=self._circuits.wait(failure.dependency),
            may_count=others_succeed
            and failure.condition is not None
            and not (in_outage or probes),
        )

    def _ordinary(
        self, history: History, attempt: Attempt, needs: tuple[str, ...], *, in_outage: bool
    ) -> Verdict:
        """Judge a failure of the message itself, or of a dependency with whose circuit it waits."""
        error, failed_breakers = attempt.error, attempt.failed_breakers
        if error is None:
            return self._policy.refused(
                history, "rejected", attempt.rejected_because, failed_breakers=failed_breakers
            )
        if isinstance(error, Reject):
            cause = error.__cause__ or error
            return self._policy.refused(
                history, error.reason, cause, failed_breakers=failed_breakers
            )
        if rejection_in(error) is None and self._policy.unrecoverable(error):
            return self._policy.refused(history, "rejected", error, failed_breakers=failed_breakers)
        # Not every circuit that is half open: what fails without a call to it is no probe of it.
        first_not_closed = self._circuits.first_not_closed(
            failed_breakers
        ) or self._circuits.first_rejecting((*attempt.refused, *needs))
        # A circuit that refused may admit again by now. One that cannot be seen counts: nobody
        # knows whether it ever does.
        refused = any(self._circuits.knows(name) for name in attempt.refused)
        return self._policy.failed(
            history,
            error,
            waiting_for=None
            if first_not_closed is None
            else (first_not_closed, self._circuits.wait(first_not_closed)),
            failed_breakers=failed_breakers,
            in_outage=refused or (in_outage and first_not_closed is not None),
        )
