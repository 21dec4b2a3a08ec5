"""Leave to make one call: settled once, and the first settlement wins."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from fusewire.breaker._loans import current_loan, enclosing_loan, publish, withdraw
from fusewire.breaker._states import SUCCESS, Outcome

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from fusewire.breaker._loans import Loan


class Issuer(Protocol):
    """What a permit needs of the circuit that issued it.

    Attributes:
        lends: whether a permit of its has ever been lent.
    """

    lends: bool

    @property
    def name(self) -> str:
        """The name of the circuit."""

    def settle(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Record the outcome, if it is the permit's first."""

    def classify(self, error: BaseException, started: float = ...) -> Outcome:
        """Say what `error`, of a call begun at `started`, says about the dependency."""


class Lent(Enum):
    """Whether a permit has been lent to a call within its own, and where it is now."""

    NEVER = "never"
    IN_USE = "in use"
    LEFT = "left"
    """In use, and the lender's call is over: the borrower alone has something to say."""
    RETURNED = "returned"
    """The borrower had nothing to say, so the lender has, or another borrower."""


NEVER_LENT = Lent.NEVER


class Permit:
    """Leave to make one call through a circuit, got from ``acquire()``.

    Settle it once, from any thread: the first settlement wins, later ones do nothing. As a context
    manager, plain or async, it settles itself by how the block ends, and is lent to the first call
    of the same circuit that is made in the block: then it is settled by that call.

    Attributes:
        probe: whether the call finds out if the dependency has recovered. The permit of a probe is
            a lease: when it runs out, its place is given to another call.
    """

    __slots__ = ("_issuer", "_loan", "generation", "lent", "probe", "settled", "started")

    lender: Permit | None = None

    # All by position: a permit is made for each call.
    def __init__(self, issuer: Issuer, generation: int, started: float, probe: bool) -> None:  # noqa: FBT001 - see above
        self._issuer = issuer
        self.generation = generation
        self.started = started
        self.probe = probe
        self.settled = False
        self.lent = NEVER_LENT

    @property
    def name(self) -> str:
        """The name of the breaker that issued it."""
        return self._issuer.name

    def success(self) -> None:
        """Say that the dependency answered."""
        self._issuer.settle(self, SUCCESS)

    def failure(self, *, retry_after: float | None = None) -> None:
        """Say that the dependency failed.

        Args:
            retry_after: seconds after which the dependency asked to be tried again. If this failure
                opens the circuit, it stays open for so long. What is no positive finite number is
                taken as no hint.
        """
        self._issuer.settle(self, Outcome.FAILURE, retry_after)

    def release(self) -> None:
        """Give the permit back: the call says nothing about the dependency."""
        self._issuer.settle(self, Outcome.IGNORED)

    def settle(self, outcome: Outcome, *, retry_after: float | None = None) -> None:
        """Settle with `outcome`; `retry_after` as for :meth:`failure`."""
        self._issuer.settle(self, outcome, retry_after)

    def conclude(self, outcome: Outcome) -> None:
        """Settle by how the code ended in which the permit was lent.

        That the code succeeded says nothing then: its calls know how they ended.
        """
        if self.settled:
            return
        if outcome is SUCCESS and self.lent is not NEVER_LENT:
            outcome = Outcome.IGNORED
        self._issuer.settle(self, outcome)

    def lending(self) -> Lending:
        """Lend the permit to the first call of the same circuit that is made in the block.

        Unlike the permit's own block, it settles nothing: do so afterwards, with :meth:`conclude`.
        """
        return Lending(self._issuer, self)

    def __enter__(self) -> Self:
        issuer, around = self._issuer, current_loan()
        issuer.lends = True
        if around is not None:
            around = enclosing_loan()
        self._loan: Loan = [issuer, around, self]
        publish(self._loan)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        withdraw(self._loan)
        issuer = self._issuer
        self.conclude(SUCCESS if error is None else issuer.classify(error, self.started))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)


class BorrowedPermit(Permit):
    """A permit that another call has lent: what it says is said of the lender's."""

    __slots__ = ("lender",)

    lender: Permit

    def __init__(self, issuer: Issuer, lender: Permit, started: float) -> None:
        # No circuit is ever in this generation, so it takes no short way to its settlement.
        super().__init__(issuer, -1, started, lender.probe)
        self.lender = lender


class Lending:
    """The block in which a permit is lent; see :meth:`Permit.lending`."""

    __slots__ = ("_loan",)

    def __init__(self, issuer: Issuer, permit: Permit) -> None:
        self._loan: Loan = [issuer, None, permit]

    def __enter__(self) -> None:
        loan = self._loan
        loan[0].lends = True
        if current_loan() is not None:
            loan[1] = enclosing_loan()
        publish(loan)

    def __exit__(self, *_: object) -> None:
        withdraw(self._loan)
