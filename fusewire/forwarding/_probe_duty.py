"""Whose calls are the probes of a circuit: a user's, or those that wait in its lane.

A probe of a server that hangs takes its whole deadline. A user would wait for that, while calls
wait in the lane for nothing else. So the forwarder of the same process makes the probes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.forwarding._handle import ForwarderHandle

_PATIENCE = 5.0
"""Seconds that a half-open circuit is left to a forwarder that makes no call to it.

Its messages may rest, or its replays may be limited. Then a user's call is the probe after all, or
the circuit would never close.
"""

_MOST_KNOWN = 1000


class ProbeDuty:
    """Says whether a user's call leaves the probe to the forwarder of this process.

    Args:
        lane_of: returns the lane of a breaker.
        monotonic: the clock.

    Attributes:
        forwarder: the forwarder of this process; None while there is none.
    """

    def __init__(
        self, lane_of: Callable[[str], str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.forwarder: ForwarderHandle | None = None
        self._lane_of = lane_of
        self._monotonic = monotonic
        self._left_since: dict[tuple[str, int], float] = {}

    def is_left(self, breaker: str, generation: int) -> bool:
        """Return whether the forwarder makes the probe. Safe to call from any thread.

        Args:
            breaker: the name of the breaker.
            generation: which time it is that its circuit is half open.
        """
        forwarder = self.forwarder
        if forwarder is None:
            return False
        status = forwarder.status()
        if not (status.running and status.connected):
            return False
        lane = status.lanes[self._lane_of(breaker)]
        replays = lane.replays.get(breaker)
        if replays is not None and replays.in_flight:
            return True  # it is being probed
        if not (lane.in_flight or (lane.ready is not None and lane.ready.ready)):
            return False
        now = self._monotonic()
        if len(self._left_since) >= _MOST_KNOWN:
            self._left_since.clear()
        return now - self._left_since.setdefault((breaker, generation), now) < _PATIENCE
