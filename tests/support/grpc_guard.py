"""A registry for tests of the interceptors: it keeps what each permit came to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker import BreakerRegistry, BreakerSettings, CallError, CircuitBreaker, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from fusewire.breaker import Permit


class Clock:
    """Monotonic seconds that pass only on request."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


class WatchedPermit:
    """A permit that records its outcome."""

    def __init__(self, permit: Permit, told: list[tuple[Outcome, float | None]]) -> None:
        self._permit = permit
        self._told = told
        self.probe = permit.probe
        self.settlements = 0

    def lending(self) -> AbstractContextManager[None]:
        return self._permit.lending()

    def success(self) -> None:
        self.settle(Outcome.SUCCESS)

    def failure(self, *, retry_after: float | None = None) -> None:
        self.settle(Outcome.FAILURE, retry_after=retry_after)

    def release(self) -> None:
        self.settle(Outcome.IGNORED)

    def settle(
        self,
        outcome: Outcome,
        *,
        retry_after: float | None = None,
        error: CallError | None = None,
    ) -> None:
        self.settlements += 1
        self._told.append((outcome, retry_after))
        self._permit.settle(outcome, retry_after=retry_after, error=error)


class WatchedBreaker:
    """A real breaker, and what its permits came to."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.real = breaker
        self.name = breaker.name
        self.permits: list[WatchedPermit] = []
        self.told: list[tuple[Outcome, float | None]] = []

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for outcome, _ in self.told]

    @property
    def state(self) -> str:
        return str(self.real.state)

    def acquire(self, *, timed: bool = True) -> WatchedPermit:
        permit = WatchedPermit(self.real.acquire(timed=timed), self.told)
        self.permits.append(permit)
        return permit

    def open(self) -> None:
        """Fail as often as it takes."""
        for _ in range(100):
            if self.real.state == "open":
                return
            self.real.acquire().failure()
        raise AssertionError("it does not open")

    def every_permit_settled_once(self) -> bool:
        return all(permit.settlements == 1 for permit in self.permits)


class WatchedRegistry:
    """Breakers that keep what their permits came to, with a clock that a test moves."""

    def __init__(self, settings: BreakerSettings | None = None) -> None:
        self.clock = Clock()
        self._real = BreakerRegistry(settings, clock=self.clock)
        self._watched: dict[str, WatchedBreaker] = {}

    def get(self, name: str, settings: BreakerSettings | None = None) -> WatchedBreaker:
        if name not in self._watched:
            self._watched[name] = WatchedBreaker(self._real.get(name, settings))
        return self._watched[name]

    def __iter__(self) -> Iterator[WatchedBreaker]:
        return iter(self._watched.values())

    def __contains__(self, name: object) -> bool:
        return name in self._watched
