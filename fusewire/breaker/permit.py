"""Leave to make one call: settled once, by whoever comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fusewire.breaker.states import Outcome

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Issuer(Protocol):
    """What a permit needs of the circuit that issued it."""

    @property
    def name(self) -> str:
        """The name of the circuit."""

    def settle(self, permit: Permit, outcome: Outcome, retry_after: float | None = None) -> None:
        """Record the outcome, if it is the permit's first."""

    def judge(self, error: BaseException) -> Outcome:
        """Say what `error` says about the dependency."""


class Permit:
    """Leave to make one call through a circuit, got from ``acquire()``.

    Settle it once, from any thread: the first settlement wins, later ones do nothing. As a context
    manager, plain or async, it settles itself by how the block ends.

    Attributes:
        probe: whether the call finds out if the dependency has recovered. The permit of a probe is
            a lease: when it runs out, its place is given to another call.
    """

    __slots__ = ("_issuer", "generation", "probe", "settled", "started")

    # All by position: a permit is made for each call.
    def __init__(self, issuer: Issuer, generation: int, started: float, probe: bool) -> None:  # noqa: FBT001 - see above
        self._issuer = issuer
        self.generation = generation
        self.started = started
        self.probe = probe
        self.settled = False

    @property
    def name(self) -> str:
        """The name of the breaker that issued it."""
        return self._issuer.name

    def success(self) -> None:
        """Say that the dependency answered."""
        self._issuer.settle(self, Outcome.SUCCESS)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        outcome = Outcome.SUCCESS if error is None else self._issuer.judge(error)
        self._issuer.settle(self, outcome)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)
