"""New messages: look at their circuits, then handle, park, delay or dead-letter them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.parking._decisions import Done, Recycle
from fusewire.parking._in_flight import InFlight
from fusewire.parking._receiver import Receiver
from fusewire.parking._settler import RETURNS_BEFORE_ALONE

if TYPE_CHECKING:
    from fusewire.breaker import CircuitOpenError
    from fusewire.brokers import Delivery
    from fusewire.parking._attempt import AttemptEnd
    from fusewire.parking._context import ConsumerContext
    from fusewire.parking._decisions import Ending

_PROBES_LEFT_TO_LANES = 10.0
"""Seconds for which the probe of a pause is left to the lanes, where it is due."""


class SourceWorker:
    """Works on deliveries of the source queue. None of them waits here: it is parked instead."""

    replays = False
    paused_by = None

    def __init__(self, context: ConsumerContext, *, concurrency: int) -> None:
        self._context = context
        self.receiver = Receiver(
            context,
            context.topology.source,
            prefetch=concurrency,
            work=self._take,
            hand_back=self._hand_back,
            unseen_too=True,
            ready=context.attempts.ready,
        )

    async def run(self) -> None:
        """Consume until stopping."""
        await self.receiver.run()

    async def _take(self, delivery: Delivery) -> Recycle | None:
        """Work on one delivery and settle it."""
        item = await self._context.settler.open(delivery, self.receiver)
        if not isinstance(item, InFlight):
            return item
        ending = await self._context.attempts.run(item, self)
        return await self._context.settler.settle(item, ending)

    async def _hand_back(self, delivery: Delivery, tried: bool) -> None:  # noqa: FBT001 - a callback
        if not tried:
            await self._context.settler.put_back_in_source(delivery)
        await self._context.settler.put_back_suspect(delivery)

    def suspicion(self, delivery: Delivery) -> float:
        """Return the returns from which on `delivery` is suspected of killing its process."""
        return RETURNS_BEFORE_ALONE if delivery.counts_returns else 1

    async def admit(self, item: InFlight, needs: tuple[str, ...]) -> Ending | None:
        """Park `item` if a circuit that it needs does not admit."""
        if self._context.settler.held_for(item) <= 0:  # it has waited for one that has to be alone
            return Recycle(tried=False)
        # What pauses is tried by the messages of its lane. If another replica replays that lane
        # alone, none is tried here, so after a while a new message is.
        refusing = self._context.circuits.first_rejecting(
            needs, patience=_PROBES_LEFT_TO_LANES, tried=item.history.attempts > 0
        )
        return None if refusing is None else self._context.attempts.park(item.history, refusing)

    def begins(self, *, in_outage: bool) -> None:
        """Do nothing: new messages are not paced."""

    async def rejected(self, item: InFlight, rejection: CircuitOpenError) -> Ending | None:
        """Park `item` for the circuit that refused its call."""
        return self._context.attempts.park(item.history, rejection.name)

    def ended(self, item: InFlight, end: AttemptEnd) -> bool:  # noqa: ARG002
        """Note how long a handler took that replays are measured by."""
        if isinstance(end.verdict, Done) and not end.attempt.timed:
            dependency = end.needs[0] if end.needs else ""
            self._context.handler_times.of(dependency).record(end.attempt.seconds)
        return False
