"""What live calls of one method took while its circuit was closed, by generations of half a minute.

The calls of an outage, of the minute before it, and those beside a replay must not become the
measure of a replay:

- When the circuit opens, the generations of the last minute are dropped: calls just before an
  outage are slow already.
- A generation in which replays were made is used only if there is no other: it shows what the
  replays cause.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire.breaker._histogram import Counts, merged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusewire.breaker._histogram import Histogram

ENOUGH = 20
"""Calls from which a baseline can be taken."""

GENERATION = 30.0
"""Seconds that a generation lasts."""

KEPT = 7
"""Generations that are kept of a method: three minutes, whenever a circuit opens. There are more
while they hold fewer than :data:`ENOUGH` calls."""

SUSPECT = 60.0
"""Seconds before an opening whose calls may have been slow already."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What calls of a method take while all is well.

    Attributes:
        reference: seconds; a call that takes longer is slow. It is the greater of the third
            quartile and 1.25 times `typical`.
        typical: seconds; the mean, with what is above the 95th percentile counted as that.
        calls: how many calls it is taken from; 0 if another process has told it.
    """

    reference: float
    typical: float
    calls: int

    @property
    def told(self) -> bool:
        """Whether another process has told it."""
        return self.calls == 0


def baseline_of(counts: Counts) -> Baseline | None:
    """Return the baseline that `counts` give; None if they are empty."""
    if not counts.calls:
        return None
    typical = counts.mean(at_most=counts.quantile(0.95))
    return Baseline(max(counts.quantile(0.75), 1.25 * typical), typical, counts.calls)


def generation_at(now: float) -> float:
    """Return the number of the generation that is at the clock's time `now`."""
    return now // GENERATION


def end_of_generation(now: float) -> float:
    """Return when the generation ends that is at the clock's time `now`."""
    return (generation_at(now) + 1) * GENERATION


class Generation:
    """Live calls of half a minute.

    Attributes:
        number: which half minute of the clock's time it is.
        ended: the time of its last call, by the clock.
        replayed: whether replays were made meanwhile.
        counts: its durations.
    """

    __slots__ = ("counts", "ended", "number", "replayed")

    def __init__(self, number: float) -> None:
        self.number = number
        self.ended = -math.inf
        self.replayed = False
        self.counts = Counts()


class Generations:
    """The generations of one method, the oldest first."""

    __slots__ = ("_baseline", "_known")

    def __init__(self) -> None:
        self._known: list[Generation] = []
        self._baseline: Baseline | None = None  # until a call changes it

    def add(self, ended: float, calls: Counts, replayed_at: float) -> None:
        """Add live calls of one generation.

        Args:
            ended: when the last of them ended, by the clock.
            calls: how long they took.
            replayed_at: when the last replay ended.
        """
        number = generation_at(ended)
        if not self._known or number > self._known[-1].number:
            self._trim()
            self._known.append(Generation(number))
        current = self._known[-1]
        if not current.replayed or (self._baseline and self._baseline.calls < ENOUGH):
            self._baseline = None
        current.ended = ended
        current.replayed |= generation_at(replayed_at) == number
        current.counts.include(calls)

    def load(self, former: Histogram) -> None:
        """Add calls of a former process, which are older than any of this one."""
        generation = Generation(-math.inf)
        generation.counts.load(former)
        self._known = [generation, *self._known]
        self._baseline = None

    def quiet(self) -> Counts:
        """Return the calls beside which no replays were made, if there are enough; else all."""
        known = self._known.copy()
        quiet = merged(each.counts for each in known if not each.replayed)
        return quiet if quiet.calls >= ENOUGH else merged(each.counts for each in known)

    def baseline(self) -> Baseline | None:
        """Return the baseline that the quiet calls give. Each replay asks for it."""
        if self._baseline is None:
            self._baseline = baseline_of(self.quiet())
        return self._baseline

    def opened(self, now: float) -> None:
        """Drop what may have been slow before an opening, if enough is known without it."""
        older = [each for each in self._known if each.ended <= now - SUSPECT]
        if _calls(older) >= ENOUGH:
            self._known = older
            self._baseline = None

    def _trim(self) -> None:
        """Drop what is no longer needed, before another generation begins."""
        quiet = [each for each in self._known if not each.replayed]
        known = quiet if _calls(quiet) >= ENOUGH else self._known
        while len(known) >= KEPT and _calls(known[1:]) >= ENOUGH:
            known = known[1:]
        self._known = known


def _calls(generations: Iterable[Generation]) -> int:
    return sum(each.counts.calls for each in generations)
