"""New messages: look, then handle, park, delay or put aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.parking.errors import HandBack, Reject, Retry
from fusewire.parking.feed import Feed
from fusewire.parking.handler import Attempt
from fusewire.parking.policy import Done, FailurePolicy, Verdict, rejection_in
from fusewire.parking.settle import GiveBackError

if TYPE_CHECKING:
    from fusewire.brokers import Delivery
    from fusewire.parking.circuits import Circuits
    from fusewire.parking.lanes import Dependencies
    from fusewire.parking.means import Means
    from fusewire.parking.record import Record
    from fusewire.parking.settle import Work


class Judge:
    """Turns an attempt into a verdict; the same for new messages and for replays."""

    def __init__(self, policy: FailurePolicy, circuits: Circuits) -> None:
        self._policy = policy
        self._circuits = circuits

    def needs(self, work: Work, dependencies: Dependencies) -> tuple[str, ...]:
        """Return what `work` needs: what it waited for, then what is declared."""
        declared = dependencies.of(work.view)
        waited_for = (work.record.dependency,) if work.record.dependency else ()
        return tuple(dict.fromkeys((*waited_for, *declared)))

    def park(self, record: Record, dependency: str) -> Verdict:
        """Wait for `dependency`; not an attempt."""
        wait = self._circuits.wait(dependency)
        return self._policy.park(record, dependency, "circuit_open", wait=wait)

    def in_outage(self, needs: tuple[str, ...]) -> bool:
        """Tell, before an attempt, whether it is a probe."""
        return self._circuits.troubled(needs) is not None

    def of(
        self, record: Record, attempt: Attempt, needs: tuple[str, ...], *, in_outage: bool = False
    ) -> Verdict:
        """Judge an attempt that was made."""
        error, blame = attempt.error, attempt.blame
        if error is None:
            if not attempt.unwanted:
                return Done()
            return self._policy.refused(record, "rejected", attempt.because, blame=blame)
        if isinstance(error, Retry):
            return self._policy.postpone(record, error)
        if isinstance(error, Reject):
            cause = error.__cause__ or error
            return self._policy.refused(record, error.reason, cause, blame=blame)
        if rejection_in(error) is None and self._policy.unrecoverable(error):
            return self._policy.refused(record, "rejected", error, blame=blame)
        # Not every circuit that is half open: what fails without a call to it is no probe of it.
        troubled = self._circuits.troubled(blame) or self._circuits.refusing(needs)
        return self._policy.failed(
            record,
            error,
            waiting_for=None if troubled is None else (troubled, self._circuits.wait(troubled)),
            blame=blame,
            in_outage=in_outage and troubled is not None,
        )


class Intake:
    """Works on deliveries of the source queue.

    It only looks at the breakers: the guarded call within the handler takes the one permit and
    records the one outcome.
    """

    def __init__(self, means: Means, *, concurrency: int) -> None:
        self._desk = means.desk
        self._judge = means.judge
        self._runner = means.runner
        self._circuits = means.circuits
        self._dependencies = means.dependencies
        self._feed = Feed(
            means.broker,
            means.topology.source,
            prefetch=concurrency,
            work=self._take,
            stopping=means.stopping,
            grace=means.grace,
        )

    async def run(self) -> None:
        """Consume until stopping."""
        await self._feed.run()

    async def _take(self, delivery: Delivery) -> None:
        """Work on one delivery and settle it.

        Raises:
            GiveBackError: it could not be settled for too long.
        """
        work = await self._desk.open(delivery, ending=lambda: self._feed.ending)
        if work is not None and not delivery.lost:
            await self._desk.settle(work, await self._verdict(work))

    async def _verdict(self, work: Work) -> Verdict:
        try:
            needs = self._judge.needs(work, self._dependencies)
        except Exception as error:  # noqa: BLE001 - the user's depends_on
            return self._judge.of(work.record, Attempt(error), ())
        refusing = self._circuits.refusing(needs)
        if refusing is not None:
            return self._judge.park(work.record, refusing)
        in_outage = self._judge.in_outage(needs)
        work.tried = True
        attempt = await self._runner.run(work.view, work.record)
        if isinstance(attempt.error, HandBack):
            raise GiveBackError(tried=False)
        if attempt.rejection is not None:
            return self._judge.park(work.record, attempt.rejection.name)
        return self._judge.of(work.record, attempt, needs, in_outage=in_outage)
