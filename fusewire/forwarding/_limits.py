"""How much may be queued."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fusewire._validation import COUNT, check
from fusewire.errors import FusewireError
from fusewire.parking.internal import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers import Topology
    from fusewire.forwarding._policy import ParkPolicy
    from fusewire.parking.internal import Dependencies, StatusWatch


class NotQueuedError(FusewireError):
    """A call may not be queued: its policy's `when` says no, or too many wait in its lane.

    Nothing is stored.
    """


class Limits:
    """Says whether a call may be queued.

    Args:
        topology: the queue and its lanes.
        dependencies: which lane is for which breaker.
        watch: knows how many calls wait in a lane, as of a few seconds ago.
        max_waiting: how many may; None for any number.
        monotonic: the clock of `watch`.

    Raises:
        SettingsError: `max_waiting` is no count.
    """

    def __init__(
        self,
        topology: Topology,
        dependencies: Dependencies,
        watch: StatusWatch,
        max_waiting: int | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        check("max_waiting", max_waiting, COUNT.or_none)
        self._topology = topology
        self._dependencies = dependencies
        self._watch = watch
        self._most = max_waiting
        self._monotonic = monotonic
        self._admitted: dict[str, tuple[float, int]] = {}

    def check(self, policy: ParkPolicy, request: Any, breaker: str) -> None:
        """Check that a call may be queued, which is about to be.

        Raises:
            NotQueuedError: it may not.
        """
        if policy.when is not None:
            try:
                allowed = ask("when", policy.when, request)
            except Exception as error:
                raise NotQueuedError(f"when raised {type(error).__name__}") from error
            if not allowed:
                raise NotQueuedError("its policy's when= says that it may not be queued")
        if self._most is not None:
            self._check_waiting(self._dependencies.lane(breaker), self._most)

    def _check_waiting(self, lane: str, most: int) -> None:
        """Count what waits in a lane by the last count, and by what was admitted since."""
        reading = self._watch.reading(self._topology.parked(lane), self._monotonic())
        if reading is None:
            return  # not counted yet, or the broker does not answer: storing will say so
        counted_at, admitted = self._admitted.get(lane, (reading.at, 0))
        if counted_at != reading.at:
            admitted = 0
        if reading.ready + admitted >= most:
            raise NotQueuedError(
                f"{reading.ready + admitted} calls wait in {self._topology.parked(lane)}, and "
                f"max_waiting is {most}"
            )
        self._admitted[lane] = (reading.at, admitted + 1)
