"""Calls in flight that a circuit keeps track of: probes, and calls that may hang."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.breaker._permit import Permit


class ProbeLeases:
    """The probes of a half-open circuit. Each holds a lease, which ends or expires."""

    __slots__ = ("_ends", "succeeded")

    def __init__(self) -> None:
        self._ends: dict[Permit, float] = {}
        self.succeeded = 0

    def __len__(self) -> int:
        """Return the number of probes in flight."""
        return len(self._ends)

    def begin(self, permit: Permit, end: float) -> None:
        """Add a probe whose lease expires at `end`."""
        self._ends[permit] = end

    def holds(self, permit: Permit) -> bool:
        """Return whether the probe still holds its lease."""
        return permit in self._ends

    def finish(self, permit: Permit) -> bool:
        """Remove the probe. Return whether it still held its lease."""
        return self._ends.pop(permit, None) is not None

    def expire(self, now: float) -> int:
        """Remove the probes whose lease has expired, and return how many there were."""
        over = [permit for permit, end in self._ends.items() if now >= end]
        for permit in over:
            del self._ends[permit]
        return len(over)

    def next_end(self) -> float:
        """Return when the next lease expires. There must be a probe in flight."""
        return min(self._ends.values())

    def clear_in_flight(self) -> None:
        """Remove the probes in flight. Those that succeeded stay counted."""
        self._ends.clear()

    def clear(self) -> None:
        """Remove everything."""
        self._ends.clear()
        self.succeeded = 0


class InFlightCalls:
    """The calls of a closed circuit that are in flight, and how many of them hang.

    Calls are added in order of time, so the oldest are at the front and no call is visited more
    than twice.
    """

    __slots__ = ("_hanging", "_in_flight")

    def __init__(self) -> None:
        self._in_flight: dict[Permit, float] = {}
        self._hanging: dict[Permit, float] = {}

    def begin(self, permit: Permit, now: float) -> None:
        """Add a call."""
        self._in_flight[permit] = now

    def finish(self, permit: Permit) -> None:
        """Remove a call. One that is not there is no error."""
        if self._in_flight.pop(permit, None) is None:
            self._hanging.pop(permit, None)

    def hanging(self, now: float, after: float, lease: float) -> int:
        """Return how many calls have run for more than `after` and at most `lease` seconds."""
        for permit, started in tuple(_oldest(self._in_flight, now - after)):
            del self._in_flight[permit]
            self._hanging[permit] = started
        for permit, _ in tuple(_oldest(self._hanging, now - lease)):
            del self._hanging[permit]
        return len(self._hanging)

    def reconsider(self, now: float, lease: float) -> None:
        """Count from the beginning, because the settings that say when a call hangs have changed.

        Calls that have run for longer than `lease`, the former setting, are removed.
        """
        calls = (*self._hanging.items(), *self._in_flight.items())
        self._in_flight = {permit: started for permit, started in calls if started >= now - lease}
        self._hanging.clear()

    def clear(self) -> None:
        """Remove everything."""
        self._in_flight.clear()
        self._hanging.clear()


def _oldest(calls: dict[Permit, float], before: float) -> Iterator[tuple[Permit, float]]:
    return takewhile(lambda call: call[1] < before, calls.items())
