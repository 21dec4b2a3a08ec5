"""Saying why the replay of a lane is slow, once a minute at most."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from fusewire._log_fields import fields
from fusewire.parking._replay_controller import ReplayFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fusewire.brokers import Station
    from fusewire.parking._replay_controller import ReplayFigures

logger = logging.getLogger("fusewire.parking")

_SAY_AGAIN = 60.0
"""Seconds between two lines."""

_YIELDS = 0.2
"""Share of slow replays from which on a window no longer grows faster and faster."""

_CUT = {
    ReplayFailure.REFUSED: "refused by the server",
    ReplayFailure.LATE: "the server answers too late",
}
"""Why a replay was cut, in words."""


class SlowReplayLog:
    """Logs why the replay of one lane is slow, if there is a reason.

    Args:
        station: the lane.
        clock: monotonic seconds.
    """

    def __init__(self, station: Station, clock: Callable[[], float]) -> None:
        self._station = station
        self._clock = clock
        self._said = -math.inf
        self._cuts: dict[str, Mapping[ReplayFailure, int]] = {}

    def look(self, figures: Mapping[str, ReplayFigures]) -> None:
        """Log a line if a replay is slow, and none was logged lately."""
        if self._clock() - self._said < _SAY_AGAIN:
            return
        for dependency, of_one in figures.items():
            why = self._why_slow(dependency, of_one)
            self._cuts[dependency] = dict(of_one.cuts)
            if why is not None:
                self._said = self._clock()
                logger.info(
                    "the replay of %r is slow: %s (%s)",
                    str(self._station),
                    why,
                    _in_words(dependency, of_one),
                    extra=fields(
                        "replay.slow",
                        queue=self._station.queue,
                        lane=self._station.lane,
                        circuit=dependency or None,
                        reason=why,
                    ),
                )

    def _why_slow(self, dependency: str, figures: ReplayFigures) -> str | None:
        if not figures.taking_part:
            return "waiting for its turn to take part"
        before = self._cuts.get(dependency, {})
        for kind, why in _CUT.items():
            if figures.cuts.get(kind, 0) > before.get(kind, 0):
                return why
        return "yielding to live traffic" if figures.slow_share >= _YIELDS else None


def _in_words(dependency: str, figures: ReplayFigures) -> str:
    reference = figures.reference
    slow = f"{figures.slow_share:.0%} of the replays are slow"
    if reference is not None:
        slow = f"{figures.slow_share:.0%} of the replays take more than {reference * 1000:.3g} ms"
    refused, late = (figures.cuts.get(kind, 0) for kind in _CUT)
    replicas = "1 replica" if figures.replicas == 1 else f"{figures.replicas} replicas"
    return (
        f"{dependency or 'unknown dependency'}: window {figures.window:.3g}, {figures.in_flight} "
        f"in flight, gain {figures.gain:.0%}, {slow}, {replicas}, cut {refused} times as "
        f"refused and {late} times as late"
    )
