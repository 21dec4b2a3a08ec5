"""How long replays take, and what that is compared with; no I/O.

The measure are the guarded calls of a replay, each against what live calls of its method took
before the outage. A handler that makes none that are measured is measured itself, against first
deliveries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire.breaker import Durations
from fusewire.parking._replay_reference import reference_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fusewire.breaker import Baseline, BreakerRegistry
    from fusewire.operation import TimedCall

_MOST_REMEMBERED = 1000
"""Dependencies whose handlers' times are remembered."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One replay, measured.

    Attributes:
        seconds: how long its calls took together, or its handler.
        reference: how long they took before the outage at most, in seconds; None if unknown.
    """

    seconds: float
    reference: float | None = None


class HandlerTimes:
    """How long a handler takes that makes no measured calls, by what its messages need."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._durations: dict[str, Durations] = {}

    def of(self, dependency: str) -> Durations:
        """Return what is known of messages that need `dependency`."""
        durations = self._durations.get(dependency)
        if durations is None:
            if len(self._durations) >= _MOST_REMEMBERED:
                self._durations.clear()
            durations = self._durations[dependency] = Durations(self._clock)
        return durations


class ReplayMeasures:
    """Measures the replays of one dependency in a lane.

    What was taken as a reference once stays until :meth:`forget`: what live calls take beside a
    replay is no measure for it.

    Args:
        dependency: the name of its breaker.
        registry: where the breakers are.
        handler: how long the handler takes.
    """

    def __init__(self, dependency: str, registry: BreakerRegistry, handler: HandlerTimes) -> None:
        self._dependency = dependency
        self._registry = registry
        self._handler = handler
        self._kept: dict[tuple[str, str] | None, Baseline | None] = {}

    @property
    def baseline(self) -> Baseline | None:
        """What live calls of the dependency took, or else the handler; None if unknown."""
        return self._of_calls(self._dependency, "") or self._of_handler()

    def forget(self) -> None:
        """Take the references again when they are asked for next."""
        self._kept.clear()

    def begin_outage(self) -> None:
        """Take note that the dependency is down, so that no handler's time is a reference now."""
        self._handler.of(self._dependency).begin_outage()

    def end_outage(self) -> None:
        """Take note that the dependency is well again."""
        self._handler.of(self._dependency).end_outage()

    def measure(self, timed: Sequence[TimedCall], handler: float) -> Measured:
        """Measure a replay.

        Calls to other dependencies count only if it made none to its own.

        Args:
            timed: its measured calls.
            handler: seconds that its handler took.
        """
        calls = [call for call in timed if call.breaker == self._dependency] or timed
        if not calls:
            baseline = self._of_handler()
            return Measured(handler, None if baseline is None else reference_of(baseline))
        known = [
            (call.seconds, reference_of(baseline))
            for call in calls
            if (baseline := self._of_calls(call.breaker, call.method)) is not None
        ]
        if not known:
            return Measured(sum(call.seconds for call in calls))
        return Measured(sum(took for took, _ in known), sum(reference for _, reference in known))

    def live_slow(self) -> float | None:
        """Return the share of live calls since the outage that took longer than their reference.

        It is None if too few are known, as in a replica that makes no live calls.
        """
        durations = self._durations(self._dependency)
        share = None if durations is None else durations.slow_share()
        return self._handler.of(self._dependency).slow_share() if share is None else share

    def _of_calls(self, breaker: str, method: str) -> Baseline | None:
        key = breaker, method
        if key not in self._kept:
            durations = self._durations(breaker)
            self._kept[key] = None if durations is None else durations.baseline(method)
        return self._kept[key]

    def _of_handler(self) -> Baseline | None:
        if None not in self._kept:
            of = self._handler.of
            self._kept[None] = of(self._dependency).baseline() or of("").baseline()
        return self._kept[None]

    def _durations(self, breaker: str) -> Durations | None:
        return self._registry.get(breaker).durations if breaker in self._registry else None
