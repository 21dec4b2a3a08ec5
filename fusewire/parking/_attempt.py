"""The one sequence of an attempt, whichever queue the message comes from.

What the message needs, whether that admits it, the handler, and what becomes of it. Queues differ
only in how their messages wait: each worker has a :class:`Turn` for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fusewire.parking.errors import INSTRUCTIONS, HandBack, Reject, Retry
from fusewire.parking.handler import Attempt
from fusewire.parking.policy import Done, FailurePolicy, Verdict, rejection_in
from fusewire.parking.settle import GiveBackError

if TYPE_CHECKING:
    from fusewire.breaker import CircuitOpenError
    from fusewire.parking._failure_log import FailureLog
    from fusewire.parking.circuits import Circuits
    from fusewire.parking.handler import HandlerRunner
    from fusewire.parking.lanes import Dependencies
    from fusewire.parking.record import Record
    from fusewire.parking.settle import Work


class Turn(Protocol):
    """How a message of one queue waits, and what its worker learns from the attempt."""

    async def admit(self, work: Work, needs: tuple[str, ...]) -> Verdict | None:
        """Wait until `work` may begin; return a verdict if it ends without an attempt.

        Raises:
            GiveBackError: it has to go back to its queue.
        """

    def begins(self, *, in_outage: bool) -> None:
        """Note that the handler is called next, and whether as a probe."""

    async def rejected(self, work: Work, rejection: CircuitOpenError) -> Verdict | None:
        """Wait after a circuit refused a call of the handler; return a verdict to end instead.

        Raises:
            GiveBackError: it has to go back to its queue.
        """

    def ended(self, attempt: Attempt, verdict: Verdict, *, in_outage: bool) -> None:
        """Note what became of an attempt that was made."""


class AttemptSequence:
    """Tries messages and judges the attempts.

    It only looks at the breakers: the guarded call within the handler takes the one permit and
    records the one outcome.

    Args:
        policy: how failures are retried.
        circuits: the breakers that messages wait for.
        dependencies: what is declared of them.
        runner: calls the handler.
        failures: where first failures are logged.
    """

    def __init__(
        self,
        policy: FailurePolicy,
        circuits: Circuits,
        dependencies: Dependencies,
        runner: HandlerRunner,
        failures: FailureLog,
    ) -> None:
        self._policy = policy
        self._circuits = circuits
        self._dependencies = dependencies
        self._runner = runner
        self._failures = failures

    async def run(self, work: Work, turn: Turn) -> Verdict | None:
        """Try `work` once; None if its delivery was lost while it waited.

        A rejection by a circuit is not an attempt: `turn` decides whether it waits and tries
        again.

        Raises:
            GiveBackError: it has to go back to its queue.
        """
        try:
            needs = self.needs(work)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's depends_on
            return self._judge(work.record, Attempt(error), (), in_outage=False)
        while True:
            verdict = await turn.admit(work, needs)
            if work.delivery.lost:
                return None  # the broker delivers it again
            if verdict is not None:
                return verdict
            in_outage = self._circuits.troubled(needs) is not None
            turn.begins(in_outage=in_outage)
            tried_before, work.tried = work.tried, True
            attempt = await self._runner.run(work.fresh_view(), work.record)
            work.record = work.record.with_doubtful_keys(attempt.doubtful_keys)
            if isinstance(attempt.error, HandBack):
                raise GiveBackError(tried=False)
            if attempt.rejection is None:
                verdict = self._judge(work.record, attempt, needs, in_outage=in_outage)
                turn.ended(attempt, verdict, in_outage=in_outage)
                return verdict
            work.tried = tried_before
            needs = tuple(dict.fromkeys((attempt.rejection.name, *needs)))
            verdict = await turn.rejected(work, attempt.rejection)
            if verdict is not None:
                return verdict

    def needs(self, work: Work) -> tuple[str, ...]:
        """Return what `work` needs: what it waited for, then what is declared."""
        declared = self._dependencies.of(work.view)
        waited_for = (work.record.dependency,) if work.record.dependency else ()
        return tuple(dict.fromkeys((*waited_for, *declared)))

    def park(self, record: Record, dependency: str) -> Verdict:
        """Wait for `dependency`; not an attempt."""
        wait = self._circuits.wait(dependency)
        return self._policy.park(record, dependency, "circuit_open", wait=wait)

    def _judge(
        self, record: Record, attempt: Attempt, needs: tuple[str, ...], *, in_outage: bool
    ) -> Verdict:
        error, blame = attempt.error, attempt.blame
        if error is None:
            if not attempt.unwanted:
                return Done()
            return self._policy.refused(record, "rejected", attempt.because, blame=blame)
        if not isinstance(error, INSTRUCTIONS):
            self._failures.note(record, error)
        if isinstance(error, Retry):
            return self._policy.postpone(record, error)
        if isinstance(error, Reject):
            cause = error.__cause__ or error
            return self._policy.refused(record, error.reason, cause, blame=blame)
        if rejection_in(error) is None and self._policy.unrecoverable(error):
            return self._policy.refused(record, "rejected", error, blame=blame)
        # Not every circuit that is half open: what fails without a call to it is no probe of it.
        troubled = self._circuits.troubled(blame) or self._circuits.refusing(
            (*attempt.refused, *needs)
        )
        in_outage = in_outage or bool(attempt.refused)
        return self._policy.failed(
            record,
            error,
            waiting_for=None if troubled is None else (troubled, self._circuits.wait(troubled)),
            blame=blame,
            in_outage=in_outage and troubled is not None,
        )
