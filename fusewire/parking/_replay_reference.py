"""From which duration on a replay is slow; no I/O."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusewire.breaker import Baseline
    from fusewire.parking._controller_settings import ControllerSettings

HEADROOM = 1.25
"""A replay is slow if it takes longer than this multiple of the mean.

Envoy's adaptive concurrency has the same headroom (its ``min_rtt_calc_params.buffer``, 25 %).
"""

RESOLUTION = 0.001
"""Seconds by which a slow replay takes longer, at least: the event loop alone delays by as much."""

_CALM = 8
"""Quiet replays in a row before the reference is learnt from the next one."""

_LONGER, _SHORTER = 1.075, 0.975
"""Steps by which the reference is learnt; in balance when a quarter of the replays are slow."""


def reference_of(baseline: Baseline) -> float:
    """Return the seconds from which on a call is slow."""
    return max(baseline.reference, baseline.typical + RESOLUTION)


class FirstReplays:
    """The first replays of a kind that nothing is known of: they have to do for live calls.

    Attributes:
        mean: seconds that those took which are known.

    Args:
        enough: how many give a reference.
    """

    __slots__ = ("_count", "_enough", "mean")

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self._count = 0
        self.mean = 0.0

    def add(self, duration: float) -> None:
        """Add one that took `duration` seconds."""
        self._count += 1
        self.mean += (duration - self.mean) / self._count

    @property
    def reference(self) -> float | None:
        """The longest duration that is not slow, in seconds; None while too few are known."""
        if self._count < self._enough:
            return None
        return max(HEADROOM * self.mean, self.mean + RESOLUTION)


class ReplayReference:
    """Says of each replay whether it is slow: one bit, so outliers and few samples do no harm.

    The measure is what live calls took before the outage. Learning it under load would raise it
    with every queue that the replays themselves make.

    Args:
        settings: the controller's.
        baseline: what was measured of live calls; None if nothing was, so that the first replays
            have to do.
    """

    def __init__(self, settings: ControllerSettings, baseline: Baseline | None) -> None:
        # Who has told it may be much nearer to the dependency, and then no replay is ever fast.
        told = baseline is not None and baseline.told
        self._relearn = math.inf if told else settings.relearn
        self._live = None if baseline is None else reference_of(baseline)
        self._factor = 1.0
        self._quiet_replays = 0
        self._first = FirstReplays(settings.unmeasured)

    @property
    def seconds(self) -> float | None:
        """The longest duration that is not slow; None as long as it is unknown."""
        return None if self._live is None else self._live * self._factor

    def is_slow(self, duration: float, reference: float | None) -> bool | None:
        """Return whether a replay was slow, None if that is unknown.

        Args:
            duration: seconds.
            reference: seconds, of live calls; for a replay whose calls have one of their own.
        """
        if reference is None:
            reference = self._live
        return None if reference is None else duration > reference * self._factor

    def measure(self, duration: float) -> float:
        """Take a replay for a live call that was not measured; return their mean so far, in s."""
        self._first.add(duration)
        self._live = self._first.reference
        return self._first.mean

    def learn(self, *, slow: bool, quiet: bool) -> None:
        """Adapt to replays that are heavier than live calls, within bounds.

        Args:
            slow: whether a replay was slow.
            quiet: whether that can only be due to itself: there is no queue.
        """
        if not quiet:
            self._quiet_replays = 0
            return
        self._quiet_replays += 1
        if self._quiet_replays > _CALM:
            factor = self._factor * (_LONGER if slow else _SHORTER)
            self._factor = min(max(factor, 1.0), self._relearn)
