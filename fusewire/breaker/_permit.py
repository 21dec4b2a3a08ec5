"""Permission to make one call: it is settled once, and the first settlement wins."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from fusewire.breaker._loans import current_loan, enclosing_loan, publish, withdraw
from fusewire.breaker._states import SUCCESS, Outcome

if TYPE_CHECKING:
    from typing import Self

    from fusewire.breaker._loans import Loan
    from fusewire.errors import CallError
    from fusewire.operation import Operation


class Issuer(Protocol):
    """What a permit needs of the circuit that issued it.

    Attributes:
        lends: whether any of its permits may have been lent.
    """

    lends: bool

    @property
    def name(self) -> str:
        """The name of the circuit."""

    def settle(
        self,
        permit: Permit,
        outcome: Outcome,
        retry_after: float | None = None,
        error: BaseException | CallError | None = None,
    ) -> None:
        """Record the outcome, if it is the permit's first."""

    def classify(self, error: BaseException, started: float = ...) -> Outcome:
        """Return what `error`, of a call that began at `started`, says about the dependency."""


class Lent(Enum):
    """Whether a permit has been lent to a call inside its own, and who holds it now."""

    NEVER = "never"
    IN_USE = "in use"
    LEFT = "left"
    """In use, and the lender's call is over: only the borrower can settle it."""
    RETURNED = "returned"
    """The borrower's call was ignored: the lender settles the permit, or another borrower."""


NEVER_LENT = Lent.NEVER

RECORDED: tuple[str, Operation | None] = ("", None)
"""What a permit is measured as once its duration is recorded."""


class Permit:
    """Permission to make one call through a circuit, returned by ``acquire()``.

    Settle it once, from any thread: the first settlement wins, later ones do nothing. As a context
    manager, plain or async, it settles itself when the block ends, according to how it ends. The
    first call of the same circuit in the block borrows it, and settles it instead.

    Attributes:
        probe: whether the call finds out if the dependency has recovered. A probe holds a lease:
            when it expires, another call may be the probe.
        measured_as: the method and the operation that its duration is recorded for. None if they
            are not known before the settlement; :data:`RECORDED` after it.
    """

    __slots__ = (
        "_issuer",
        "_loan",
        "generation",
        "lent",
        "measured_as",
        "probe",
        "settled",
        "started",
    )

    lender: Permit | None = None

    def __init__(
        self, issuer: Issuer, generation: int, started: float, *, probe: bool = False
    ) -> None:
        self._issuer = issuer
        self.generation = generation
        self.started = started
        self.probe = probe
        self.settled = False
        self.lent = NEVER_LENT
        self.measured_as: tuple[str, Operation | None] | None = None

    @property
    def name(self) -> str:
        """The name of the breaker that issued it."""
        return self._issuer.name

    def success(self) -> None:
        """Settle: the dependency answered."""
        self._issuer.settle(self, SUCCESS)

    def failure(
        self, *, retry_after: float | None = None, error: BaseException | CallError | None = None
    ) -> None:
        """Settle: the dependency failed.

        Args:
            retry_after: seconds after which the dependency asked to be called again. If this
                failure opens the circuit, it stays open for that long. A value that is not a
                positive finite number is not a hint.
            error: how it failed. Only its type and status are kept, for events, rejections, figures
                and the log; its text goes to the log only, if the settings have ``log_messages``.
        """
        self._issuer.settle(self, Outcome.FAILURE, retry_after, error)

    def release(self) -> None:
        """Settle: the call says nothing about the dependency."""
        self._issuer.settle(self, Outcome.IGNORED)

    def settle(
        self,
        outcome: Outcome,
        *,
        retry_after: float | None = None,
        error: BaseException | CallError | None = None,
    ) -> None:
        """Settle with `outcome`; `retry_after` and `error` as for :meth:`failure`."""
        self._issuer.settle(self, outcome, retry_after, error)

    def conclude(self, outcome: Outcome, error: BaseException | CallError | None = None) -> None:
        """Settle by the outcome of the block in which the permit was lent.

        If a call has borrowed it, a success of the block is ignored: that call knows how it ended.
        `error` is as for :meth:`failure`.
        """
        if self.settled:
            return
        if outcome is SUCCESS and self.lent is not NEVER_LENT:
            outcome = Outcome.IGNORED
        self._issuer.settle(self, outcome, None, error)

    def lending(self) -> Lending:
        """Lend the permit to the first call of the same circuit in the block.

        Unlike the permit's own block, it settles nothing: call :meth:`conclude` afterwards.
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

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        withdraw(self._loan)
        issuer = self._issuer
        outcome = SUCCESS if error is None else issuer.classify(error, self.started)
        self.conclude(outcome, error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self.__exit__(None, error, None)


class BorrowedPermit(Permit):
    """A permit that another call has lent. Settling it settles the lender's."""

    __slots__ = ("lender",)

    lender: Permit

    def __init__(self, issuer: Issuer, lender: Permit, started: float) -> None:
        # No circuit is ever in this generation, so the settlement never takes the fast path.
        super().__init__(issuer, -1, started, probe=lender.probe)
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
