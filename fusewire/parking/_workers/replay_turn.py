"""One parked message on its way to its handler, and what its dependency learns from that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.parking._decisions import Done, Park
from fusewire.parking._load_sign import load_sign
from fusewire.parking._settler import RETURNS_BEFORE_ALONE

if TYPE_CHECKING:
    from fusewire.breaker import CircuitOpenError
    from fusewire.brokers import Delivery
    from fusewire.parking._attempt import AttemptEnd
    from fusewire.parking._decisions import Ending
    from fusewire.parking._in_flight import InFlight
    from fusewire.parking._recovery import Recovery
    from fusewire.parking._workers.replay import ReplayWorker

_REFUSALS_IN_PLACE = 1
"""Refusals in a row after which a message begins again where it is; then it goes to the tail."""


class ReplayTurn:
    """The turn of one parked message.

    Attributes:
        dependency: what it is replayed for: the name of a breaker, or empty if it says none.
        recovery: of that dependency.
        number: which message of the lane it is, in their order.
        waited: whether it has waited for a circuit in vain.
    """

    replays = True

    def __init__(
        self, worker: ReplayWorker, dependency: str, recovery: Recovery, number: int
    ) -> None:
        self.dependency = dependency
        self.recovery = recovery
        self.number = number
        self.waited = False
        self._worker = worker
        self._begun: int | None = None
        self._refusals = 0

    @property
    def started(self) -> bool:
        """Whether its replay has begun, or is about to, and has not ended."""
        return self._begun is not None

    def suspicion(self, delivery: Delivery) -> float:
        """Return the returns from which on `delivery` is suspected of killing its process."""
        return RETURNS_BEFORE_ALONE if delivery.counts_returns else 1

    async def admit(self, item: InFlight, needs: tuple[str, ...]) -> Ending | None:
        """Wait for its turn."""
        return await self._worker.wait(item, needs, self)

    def start(self) -> None:
        """Begin: the handler is called next, unless something keeps it from that."""
        self._begun = self.recovery.start()

    def give_up(self) -> None:
        """End a replay that made no call."""
        if self._begun is not None:
            self._begun = None
            self.recovery.cancelled()

    def begins(self, *, in_outage: bool) -> None:  # noqa: ARG002
        """Take no further message for a while, if the next replay is far away."""
        if self.recovery.controller.window < 1:
            self._worker.part.pause()

    async def rejected(self, item: InFlight, rejection: CircuitOpenError) -> Ending | None:
        """Wait for the circuit that refused a call: that was no attempt."""
        self.give_up()
        self._worker.see(self)
        return await self._worker.rejected(item, rejection)

    def ended(self, item: InFlight, end: AttemptEnd) -> bool:
        """Learn from an attempt; a message that the server refused begins again, once."""
        begun, self._begun = self._begun, None
        if isinstance(end.verdict, Done):
            if begun is not None and self.recovery.succeeded(
                begun, end.attempt.timed, end.attempt.seconds
            ):
                self._worker.part.fit()
            return False
        if begun is not None:
            self.recovery.failed(begun, load_sign(end.attempt))
        self._worker.see(self)
        self._worker.part.fit()
        return self._begins_again(item, end)

    def _begins_again(self, item: InFlight, end: AttemptEnd) -> bool:
        verdict = end.verdict
        refused = isinstance(verdict, Park) and verdict.history.refusals > item.history.refusals
        if not isinstance(verdict, Park) or not refused or item.lone:
            return False
        self._refusals += 1
        if self._refusals > _REFUSALS_IN_PLACE or item.receiver.ending:
            return False
        item.history = verdict.history.unparked(item.history)
        return True
