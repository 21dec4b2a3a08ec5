"""Calls within a call, made through a breaker and through the naive model side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker import CircuitOpenError
from tests.support.ways_through import by_generator

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fusewire.breaker import CircuitBreaker
    from fusewire.testing import FakeClock
    from tests.support.naive_circuit import NaiveCircuit, NaivePermit

    Way = Callable[[CircuitBreaker, Callable[[], Any]], Any]
    End = tuple[str, float]  # what the work comes to, after how many seconds


class NestedCalls:
    """Makes one call with others within it, and tells the model the expected result."""

    def __init__(self, breaker: CircuitBreaker, model: NaiveCircuit, clock: FakeClock) -> None:
        self.breaker = breaker
        self.model = model
        self.clock = clock
        self.gave_back = False

    def make(self, lender: Way, borrower: Way, inner: list[End], end: End) -> None:
        outer = self.model.acquire(timed=lender is not by_generator)

        def work() -> None:
            assert outer is not None, "admitted"
            for each in inner:
                self.call_within(outer, borrower, each)
            self.work(end)

        admitted = self.go(lender, work)
        assert admitted == (outer is not None)
        if outer is not None:
            nothing_said = self.gave_back and end[0] == "success"
            self.model.settle(outer, "ignored" if nothing_said else end[0])

    def call_within(self, outer: NaivePermit, borrower: Way, end: End) -> None:
        started, timed = self.model.now, borrower is not by_generator
        borrowed = self.model.borrow(outer, timed=timed)
        own = None if borrowed else self.model.acquire(timed=timed)
        admitted = self.go(borrower, lambda: self.work(end))
        assert admitted == (borrowed or own is not None)
        if own is not None:
            self.model.settle(own, end[0])
        elif borrowed and end[0] == "ignored":
            self.gave_back = True
        elif borrowed:
            outer.started, outer.timed = started, timed
            self.model.settle(outer, end[0])

    def go(self, way: Way, work: Callable[[], None]) -> bool:
        """Go a way through the breaker, and return whether it admitted the call."""
        try:
            way(self.breaker, work)
        except CircuitOpenError:
            return False
        except (ConnectionError, KeyboardInterrupt):
            pass
        return True

    def work(self, end: End) -> None:
        outcome, seconds = end
        self.clock.advance(seconds)
        self.model.advance(seconds)
        if outcome == "failure":
            raise ConnectionError
        if outcome == "ignored":
            raise KeyboardInterrupt
