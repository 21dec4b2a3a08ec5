"""How long replays take, and what that is compared with; no I/O.

The measure are the guarded calls of a replay, each against what live calls of its method took
before the outage. A handler that makes none that are measured is measured itself, against first
deliveries. What is measured for the first time in a replay is compared with its own first replays,
and never with other methods: it may take a hundred times as long as they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fusewire.breaker import Durations
from fusewire.parking._live_calls import read_live_calls
from fusewire.parking._replay_reference import FirstReplays, reference_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fusewire.breaker import Baseline, BreakerRegistry
    from fusewire.operation import TimedCall

_MOST_REMEMBERED = 1000
"""Dependencies whose handlers' times are remembered."""


class Measured(NamedTuple):
    """One replay, measured.

    Attributes:
        seconds: how long its calls took together, or its handler.
        reference: how long they take at most while all is well, in seconds; None if unknown.
    """

    seconds: float
    reference: float | None = None


class _Reference:
    """The longest that calls of one method, or a handler, take while all is well.

    Attributes:
        live: what live calls took before the outage; None if nothing was measured.
        seconds: the longest that is not slow. None until enough replays were measured, if no live
            calls were.
        learns: whether replays are measured for it. Where another replica has told what calls
            took, that may be further away from the dependency than this one, which nothing else
            would show: then what this one measures is less.
    """

    __slots__ = ("_first", "learns", "live", "seconds")

    def __init__(self, live: Baseline | None, enough: int) -> None:
        self.live = live
        self.seconds = None if live is None else reference_of(live)
        self.learns = live is None or live.told
        self._first = FirstReplays(enough)

    def learn(self, duration: float) -> None:
        """Take note of a replay."""
        self._first.add(duration)
        measured = self._first.reference
        if measured is not None:
            self.seconds = measured if self.seconds is None else min(measured, self.seconds)
            self.learns = False


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
        enough: how many replays give a reference where no live call was measured.
    """

    def __init__(
        self, dependency: str, registry: BreakerRegistry, handler: HandlerTimes, *, enough: int
    ) -> None:
        self._dependency = dependency
        self._registry = registry
        self._handler = handler
        self._enough = enough
        self._references: dict[tuple[str, str] | None, _Reference] = {}
        self._baseline: Baseline | None = None

    @property
    def baseline(self) -> Baseline | None:
        """What live calls of the dependency took, or else the handler; None if unknown."""
        if self._baseline is None:
            durations = self._durations(self._dependency)
            of_calls = None if durations is None else durations.baseline()
            self._baseline = of_calls or self._of_handler().live
        return self._baseline

    def hear(self, live_calls: str) -> Baseline | None:
        """Take from another replica what live calls took, if nothing is known of them here.

        Args:
            live_calls: as a message carries it.

        Returns:
            the longest of them; None if nothing was taken.
        """
        if self.baseline is not None or not (told := read_live_calls(live_calls)):
            return None
        for method, baseline in told.items():
            reference = _Reference(baseline, self._enough)
            self._references[self._dependency, method] = reference
            if not method:  # of the handler, if it makes no measured calls
                self._references[None] = reference
        self._baseline = max(told.values(), key=lambda one: one.reference)
        return self._baseline

    def forget(self) -> None:
        """Take the references again when they are asked for next."""
        self._references.clear()
        self._baseline = None

    def begin_outage(self) -> None:
        """Take note that the dependency is down, so that no handler's time is a reference now."""
        self._handler.of(self._dependency).begin_outage()

    def end_outage(self) -> None:
        """Take note that the dependency is well again."""
        self._handler.of(self._dependency).end_outage()

    def measure(self, timed: Sequence[TimedCall], handler: float) -> Measured:
        """Measure a replay, and learn from it what nothing else says.

        Calls to other dependencies count only if it made none to its own.

        Args:
            timed: its measured calls.
            handler: seconds that its handler took.
        """
        if not timed:
            return _measured(((handler, self._of_handler()),))
        calls = [call for call in timed if call.breaker == self._dependency] or timed
        return _measured(
            (call.seconds, self._of_calls(call.breaker, call.method)) for call in calls
        )

    def live_slow(self) -> float | None:
        """Return the share of live calls since the outage that took longer than their reference.

        It is None if too few are known, as in a replica that makes no live calls.
        """
        durations = self._durations(self._dependency)
        share = None if durations is None else durations.slow_share()
        return self._handler.of(self._dependency).slow_share() if share is None else share

    def _of_calls(self, breaker: str, method: str) -> _Reference:
        key = breaker, method
        reference = self._references.get(key)
        if reference is None:
            durations = self._durations(breaker)
            live = None if durations is None else durations.baseline(method)
            reference = self._references[key] = _Reference(live, self._enough)
        return reference

    def _of_handler(self) -> _Reference:
        reference = self._references.get(None)
        if reference is None:
            of = self._handler.of
            live = of(self._dependency).baseline() or of("").baseline()
            reference = self._references[None] = _Reference(live, self._enough)
        return reference

    def _durations(self, breaker: str) -> Durations | None:
        found = self._registry.find(breaker)
        return None if found is None else found.durations


def _measured(calls: Iterable[tuple[float, _Reference]]) -> Measured:
    known = reference = unknown = 0.0
    for took, each in calls:
        longest = each.seconds
        if each.learns:
            each.learn(took)
        if longest is None:
            unknown += took
        else:
            known += took
            reference += longest
    return Measured(known, reference) if reference else Measured(unknown)
