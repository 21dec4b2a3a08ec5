"""Calls in flight that a circuit must know of: probes, and calls that may hang."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.breaker._permit import Permit


class ProbeLeases:
    """The probes of a half-open circuit. A probe is a lease: it ends, or it is taken back."""

    __slots__ = ("_ends", "succeeded")

    def __init__(self) -> None:
        self._ends: dict[Permit, float] = {}
        self.succeeded = 0

    def __len__(self) -> int:
        """Return how many are in flight."""
        return len(self._ends)

    def begin(self, permit: Permit, end: float) -> None:
        """Let a probe begin whose lease runs out at `end`."""
        self._ends[permit] = end

    def knows(self, permit: Permit) -> bool:
        """Tell whether the probe still has its place."""
        return permit in self._ends

    def finish(self, permit: Permit) -> bool:
        """Forget the probe; tell whether it was still known."""
        return self._ends.pop(permit, None) is not None

    def expire(self, now: float) -> int:
        """Take back the places whose lease has run out, and tell how many."""
        over = [permit for permit, end in self._ends.items() if now >= end]
        for permit in over:
            del self._ends[permit]
        return len(over)

    def next_end(self) -> float:
        """Return when the next lease runs out. There must be a probe in flight."""
        return min(self._ends.values())

    def forget_in_flight(self) -> None:
        """Forget the probes in flight; those that succeeded stay counted."""
        self._ends.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._ends.clear()
        self.succeeded = 0


class InFlightCalls:
    """The calls of a closed circuit that are in flight, and how many of them hang.

    Calls begin in the order of time, so the oldest are found at the front: no call is looked at
    more than twice.
    """

    __slots__ = ("_hanging", "_in_flight")

    def __init__(self) -> None:
        self._in_flight: dict[Permit, float] = {}
        self._hanging: dict[Permit, float] = {}

    def begin(self, permit: Permit, now: float) -> None:
        """Let a call begin."""
        self._in_flight[permit] = now

    def finish(self, permit: Permit) -> None:
        """Forget the call; one that is not known is no error."""
        if self._in_flight.pop(permit, None) is None:
            self._hanging.pop(permit, None)

    def hanging(self, now: float, after: float, lease: float) -> int:
        """Count the calls that have run for longer than `after` and less than `lease` seconds."""
        for permit, started in tuple(_oldest(self._in_flight, now - after)):
            del self._in_flight[permit]
            self._hanging[permit] = started
        for permit, _ in tuple(_oldest(self._hanging, now - lease)):
            del self._hanging[permit]
        return len(self._hanging)

    def reconsider(self, now: float, lease: float) -> None:
        """Look at the calls again, because other rules say when one hangs.

        What has run for longer than the `lease` it began with is forgotten.
        """
        calls = (*self._hanging.items(), *self._in_flight.items())
        self._in_flight = {permit: started for permit, started in calls if started >= now - lease}
        self._hanging.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._in_flight.clear()
        self._hanging.clear()


def _oldest(calls: dict[Permit, float], before: float) -> Iterator[tuple[Permit, float]]:
    for permit, started in calls.items():
        if started >= before:
            break
        yield permit, started
