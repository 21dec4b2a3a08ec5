"""New messages: look, then handle, park, delay or put aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.parking.feed import Feed
from fusewire.parking.settle import RETURNS_BEFORE_ALONE, GiveBackError

if TYPE_CHECKING:
    from fusewire.breaker import CircuitOpenError
    from fusewire.brokers import Delivery
    from fusewire.parking._work import Work
    from fusewire.parking.handler import Attempt
    from fusewire.parking.means import Means
    from fusewire.parking.policy import Verdict


_PROBES_LEFT_TO_LANES = 10.0
"""Seconds for which the probe of a pause is left to the lanes, where it is due."""


class Intake:
    """Works on deliveries of the source queue. None of them waits here: it is parked instead."""

    def __init__(self, means: Means, *, concurrency: int) -> None:
        self._desk = means.desk
        self._attempts = means.attempts
        self._circuits = means.circuits
        self._feed = Feed(
            means.broker,
            means.topology.source,
            prefetch=concurrency,
            work=self._take,
            stopping=means.stopping,
            grace=means.grace,
            hand_back=self._hand_back,
            settling=means.desk.is_settling,
            unseen_too=True,
            ready=means.attempts.ready,
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
        if work is None:
            return
        verdict = await self._attempts.run(work, self)
        if verdict is not None:
            await self._desk.settle(work, verdict)

    async def _hand_back(self, delivery: Delivery, tried: bool) -> None:  # noqa: FBT001 - a callback
        if not tried:
            await self._desk.put_back_in_source(delivery)
        await self._desk.put_back_suspect(delivery)

    def suspicion(self, delivery: Delivery) -> float:
        """Return the returns from which on `delivery` is suspected of killing its process."""
        return RETURNS_BEFORE_ALONE if delivery.counts_returns else 1

    async def admit(self, work: Work, needs: tuple[str, ...]) -> Verdict | None:
        """Park `work` if a circuit that it needs does not admit.

        Raises:
            GiveBackError: it has waited for as long as it may, for one that has to be alone.
        """
        if self._desk.held_for(work) <= 0:
            raise GiveBackError(tried=False)
        # What pauses is tried by the messages of its lane. If another replica replays that lane
        # alone, none is tried here, so after a while a new message is.
        refusing = self._circuits.refusing(
            needs, patience=_PROBES_LEFT_TO_LANES, tried=work.record.attempts > 0
        )
        return None if refusing is None else self._attempts.park(work.record, refusing)

    def begins(self, *, in_outage: bool) -> None:
        """Do nothing: new messages are not paced."""

    async def rejected(self, work: Work, rejection: CircuitOpenError) -> Verdict | None:
        """Park `work` for the circuit that refused its call."""
        return self._attempts.park(work.record, rejection.name)

    def ended(self, attempt: Attempt, verdict: Verdict, *, in_outage: bool) -> None:
        """Do nothing: new messages are not paced."""
