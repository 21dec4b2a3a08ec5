"""The arithmetic of loans: one call path is one call, however often it meets the circuit.

An outer call lends its permit to the first inner one, which settles it. If that one has nothing to
say, the permit goes back: to the next inner call, or to the outer call's end, of which only a
failure counts then. A second inner call, beside the first or after it, is a call of its own.

To offer a loan costs as much as the rest of a healthy call, and most calls have no others within
them. So a circuit has its healthy calls offer loans only as long as there is a reason to: for its
first :data:`PROVING` calls, and for good once a call has come while another was in progress, which
all calls within others do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fusewire.breaker._loans import LENT
from fusewire.breaker._machine import Machine
from fusewire.breaker._permit import BorrowedPermit, Lent, Permit
from fusewire.breaker._states import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker._loans import Loan
    from fusewire.breaker._permit import Issuer
    from fusewire.breaker._settings import BreakerSettings

PROVING = 1000
"""Healthy calls that offer loans before a circuit stops it, if none was taken."""


class LendingMachine(Machine):
    """A machine whose permits can be lent."""

    __slots__ = ("_idle", "_idle_again", "_unproven", "lends")

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        clock: Callable[[], float],
        rng: Callable[[], float],
    ) -> None:
        self._unproven: float = PROVING
        self._idle = self._idle_again = 0
        # Whether a call can have offered a loan. Permits that are settled by hand never do.
        self.lends = False
        super().__init__(name, settings, clock, rng)

    def _lend(self, now: float, issuer: Issuer, loan: Loan, started: float) -> Permit | None:
        """Lend what `loan` offers; None if that cannot be had."""
        self._offer_for_good()
        try:
            lender = loan[LENT]
            if not isinstance(lender, Permit):
                lender = loan[LENT] = Permit(issuer, lender, started, False)  # noqa: FBT003 - see Permit
        except IndexError:  # the call has just ended, in another thread
            return None
        if lender.settled or lender.lent is Lent.IN_USE:
            return None
        root = _root(lender)
        if root.generation != self._generation or (root.probe and not self._probes.knows(root)):
            return None  # what it said would be late
        lender.lent = Lent.IN_USE
        if self._settings.open_on_hanging:
            self._in_flight.finish(root)
            if started == now:
                self._in_flight.begin(root, now)
        return BorrowedPermit(issuer, lender, started)

    def _settle(
        self, now: float, permit: Permit, outcome: Outcome, retry_after: float | None
    ) -> bool:
        """Settle the permit; tell whether this is its first settlement."""
        if permit.settled:
            return False
        if outcome is Outcome.IGNORED and permit.lent in (Lent.IN_USE, Lent.LEFT):
            permit.lent = Lent.LEFT
            return True
        lender = permit.lender
        if lender is None:
            return super()._settle(now, permit, outcome, retry_after)
        permit.settled = True
        if outcome is not Outcome.IGNORED:
            lender.started = permit.started
            return self._settle(now, lender, outcome, retry_after)
        left = lender.lent is Lent.LEFT
        lender.lent = Lent.RETURNED
        return left and self._settle(now, lender, outcome, None)

    def _refresh(self) -> None:
        super()._refresh()
        self._refresh_idle(0.0)

    def _refresh_idle(self, _now: float) -> None:
        quiet = self._unproven <= 0 and self._settings.classify_result is None
        busy = self._idle != self._idle_again
        # What a healthy call takes that finds none in progress, and puts back at its end.
        self._idle_again = self._free if quiet else 0
        self._idle = 0 if busy else self._idle_again

    def _offer_for_good(self) -> None:
        """Offer loans from now on: a call is in progress that does not, or has lent its permit."""
        # Without the lock: it changes no figure, and comes with calls that should not wait.
        self._unproven = math.inf
        self._idle_again = self._idle = 0


def _root(permit: Permit) -> Permit:
    """Find the permit that the circuit has issued, at the end of a chain of loans."""
    while permit.lender is not None:
        permit = permit.lender
    return permit
