"""The rules of loans: one call path is one call, however often it meets the circuit.

An outer call lends its permit to the first inner one, which settles it. If the inner call is
ignored, the permit returns to the outer call, which may lend it again; when the outer call ends,
only a failure of it counts. A second inner call, during the first or after it, is a call of its
own.

Offering a loan costs as much as the rest of a healthy call, and most calls have no others inside
them. So healthy calls offer loans only while there is a reason to: for the first :data:`PROVING`
calls of a circuit, and permanently once a call has started while another was in flight, as every
inner call does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fusewire.breaker._loans import LENT
from fusewire.breaker._machine import Machine
from fusewire.breaker._permit import BorrowedPermit, Lent, Permit
from fusewire.breaker._states import Outcome
from fusewire.errors import NO_ERROR

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker._loans import Loan
    from fusewire.breaker._permit import Issuer
    from fusewire.breaker._settings import BreakerSettings
    from fusewire.errors import CallError

PROVING = 1000
"""Healthy calls that offer loans before a circuit stops offering them, if none was taken."""


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
        # Whether any call may have offered a loan. Permits that are settled by hand never do.
        self.lends = False
        super().__init__(name, settings, clock, rng)

    def _lend(self, now: float, issuer: Issuer, loan: Loan, started: float) -> Permit | None:
        """Borrow what `loan` offers; None if it is no longer available."""
        self._offer_for_good()
        try:
            lender = loan[LENT]
            if not isinstance(lender, Permit):
                lender = loan[LENT] = Permit(issuer, lender, started)
        except IndexError:  # the call has just ended in another thread
            return None
        if lender.settled or lender.lent is Lent.IN_USE:
            return None
        root = _root(lender)
        if root.generation != self._generation or (root.probe and not self._probes.holds(root)):
            return None  # its result would be late
        lender.lent = Lent.IN_USE
        if self._settings.open_on_hanging:
            self._in_flight.finish(root)
            if started == now:
                self._in_flight.begin(root, now)
        return BorrowedPermit(issuer, lender, started)

    def _settle(
        self,
        now: float,
        permit: Permit,
        outcome: Outcome,
        retry_after: float | None,
        error: CallError = NO_ERROR,
    ) -> bool:
        """Settle the permit. Return whether this is its first settlement."""
        if permit.settled:
            return False
        if outcome is Outcome.IGNORED and permit.lent in (Lent.IN_USE, Lent.LEFT):
            permit.lent = Lent.LEFT
            return True
        lender = permit.lender
        if lender is None:
            return super()._settle(now, permit, outcome, retry_after, error)
        permit.settled = True
        if outcome is not Outcome.IGNORED:
            lender.started = permit.started
            return self._settle(now, lender, outcome, retry_after, error)
        left = lender.lent is Lent.LEFT
        lender.lent = Lent.RETURNED
        return left and self._settle(now, lender, outcome, None)

    def _take_back(self, now: float, permit: Permit) -> None:
        lender = permit.lender
        if permit.lent is not Lent.NEVER or (lender is not None and lender.lent is Lent.LEFT):
            # The borrower or the lender has made its call, and only this settlement is missing.
            self._settle(now, permit, Outcome.IGNORED, None)
            return
        self._probes.finish(permit)
        self._in_flight.finish(permit)
        if lender is not None:
            lender.lent = Lent.NEVER

    def _refresh(self) -> None:
        super()._refresh()
        self._refresh_idle()

    def _refresh_idle(self, _now: float = 0.0) -> None:
        quiet = self._unproven <= 0 and self._settings.classify_result is None
        busy = self._idle != self._idle_again
        # A healthy call takes this if no other is in flight, and restores it when it ends.
        self._idle_again = self._free if quiet else 0
        self._idle = 0 if busy else self._idle_again

    def _offer_for_good(self) -> None:
        """Offer loans permanently, because calls overlap or a permit was lent."""
        # Without the lock: it changes no count, and the calls that need it should not wait.
        self._unproven = math.inf
        self._idle_again = self._idle = 0


def _root(permit: Permit) -> Permit:
    """Return the permit that the circuit has issued, at the end of a chain of loans."""
    while permit.lender is not None:
        permit = permit.lender
    return permit
