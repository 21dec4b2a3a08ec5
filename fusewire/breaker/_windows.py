"""The latest calls, by number or by time, and how many of them failed or were slow.

Recording is O(1), whatever the window's length. A healthy call, one that neither failed nor was
slow, need not even be recorded on its own. A window knows how many healthy calls, until when,
change nothing but its number of calls, and records them in bulk.
"""

from __future__ import annotations

import math
import sys
from array import array
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fusewire.breaker._settings import BreakerSettings

BUCKETS = 20
"""A time window drops old calls in steps of a twentieth of its length: fine enough for a rate, and
few enough to empty an idle window at once."""

FAILED = 1
SLOW = 2


@dataclass(frozen=True, slots=True)
class Bucket:
    """Consecutive calls of a window, as a snapshot keeps them, oldest first.

    Attributes:
        calls: how many there were.
        failed: how many of them failed.
        slow: how many of them were slow.
        age: seconds from the start of this bucket of a time window to the start of the latest one.
    """

    calls: int
    failed: int
    slow: int
    age: float = 0.0


class Window(Protocol):
    """What a circuit needs of a window.

    Attributes:
        calls: calls in the window.
        failed: failed ones among them.
        slow: slow ones among them.
        until: the time before which :meth:`room` holds.
    """

    calls: int
    failed: int
    slow: int
    until: float

    def record(self, kind: int, now: float, /) -> None:
        """Record a call of `kind`, a sum of ``FAILED`` and ``SLOW``, that ended at `now`."""

    def add_healthy(self, calls: int, /) -> None:
        """Record this many healthy calls, which ended before `until`."""

    def room(self, minimum: int, /) -> int:
        """Return how many healthy calls change nothing but the number of calls.

        From `minimum` calls on, more healthy calls cannot raise a rate.
        """

    def drop_old(self, now: float, /) -> None:
        """Drop what is too old at `now`."""

    def totals(self, now: float, /) -> tuple[int, int, int]:
        """Return the calls at `now`, the failed and the slow ones, without changing anything."""

    def dump(self, now: float, /) -> tuple[Bucket, ...]:
        """Return the content at `now`, oldest first, without changing it."""

    def load(self, buckets: Sequence[Bucket], now: float, /) -> None:
        """Load the content of a window of the same kind: the latest calls, as many as fit."""


class NoWindow:
    """The window of a circuit that has none: it stays empty."""

    __slots__ = ()

    calls = 0
    failed = 0
    slow = 0
    until = math.inf

    def record(self, _kind: int, _now: float) -> None:
        """Drop the call."""

    def add_healthy(self, _calls: int) -> None:
        """Drop the calls."""

    def room(self, _minimum: int) -> int:
        """Return that healthy calls never change anything."""
        return sys.maxsize

    def drop_old(self, _now: float) -> None:
        """Do nothing: there is nothing to drop."""

    def totals(self, _now: float) -> tuple[int, int, int]:
        """Return that there are none."""
        return 0, 0, 0

    def dump(self, _now: float) -> tuple[Bucket, ...]:
        """Return nothing."""
        return ()

    def load(self, _buckets: Sequence[Bucket], _now: float) -> None:
        """Load nothing."""


class CountWindow:
    """The latest `size` calls, in a ring.

    Each call that is not healthy holds the place of the next one, so the oldest is known at once
    when one of them is overwritten.
    """

    __slots__ = (
        "_latest",
        "_next",
        "_oldest",
        "_place",
        "_ring",
        "calls",
        "failed",
        "size",
        "slow",
    )

    until = math.inf

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls = self.failed = self.slow = 0
        self._ring = bytearray(size)
        self._next = array("I", bytes(4 * size))
        # Where the next call goes, which is where the oldest is once the ring is full.
        self._place = 0
        # Places of calls that are not healthy. Without any, they have no meaning.
        self._oldest: int
        self._latest: int

    def record(self, kind: int, _now: float = 0.0) -> None:
        """Record a call in the place of the oldest."""
        place = self._place
        old = self._ring[place]
        if old:
            self.failed -= old & FAILED
            self.slow -= old >> 1
            self._oldest = self._next[place]
        self._ring[place] = kind
        if kind:
            if self.failed or self.slow:
                self._next[self._latest] = place
            else:
                self._oldest = place
            self._latest = place
            self.failed += kind & FAILED
            self.slow += kind >> 1
        self._place = (place + 1) % self.size
        if self.calls < self.size:
            self.calls += 1

    def add_healthy(self, calls: int) -> None:
        """Advance by `calls`: what they overwrite is healthy too, so there is nothing to write."""
        if calls <= self.room(0):
            self._place = (self._place + calls) % self.size
            self.calls = min(self.calls + calls, self.size)
        else:
            # More than there was room for, because threads have raced.
            for _ in range(calls):
                self.record(0)

    def room(self, minimum: int) -> int:
        """Return how many calls there are before the oldest that is not healthy is overwritten."""
        if not (self.failed or self.slow):
            return sys.maxsize
        return (self._oldest - self._place) % self.size if self.calls >= minimum else 0

    def drop_old(self, _now: float) -> None:
        """Do nothing: calls do not become too old."""

    def totals(self, _now: float) -> tuple[int, int, int]:
        """Return the totals, which are kept."""
        return self.calls, self.failed, self.slow

    def dump(self, _now: float) -> tuple[Bucket, ...]:
        """Return the content as runs of calls of one kind."""
        kinds = (
            self._ring[place % self.size] for place in range(self._place - self.calls, self._place)
        )
        runs = ((kind, len(tuple(run))) for kind, run in groupby(kinds))
        return tuple(
            Bucket(calls, calls * (kind & FAILED), calls * (kind >> 1)) for kind, calls in runs
        )

    def load(self, buckets: Sequence[Bucket], _now: float) -> None:
        """Record the runs again."""
        for run in buckets:
            kind = (FAILED if run.failed else 0) | (SLOW if run.slow else 0)
            for _ in range(min(run.calls, self.size)):
                self.record(kind)


class TimeWindow:
    """The calls of the latest `seconds`, in buckets. The oldest bucket is dropped as a whole."""

    __slots__ = ("_buckets", "_current", "_width", "calls", "failed", "slow", "until")

    def __init__(self, seconds: float, now: float) -> None:
        self.calls = self.failed = self.slow = 0
        self._width = seconds / BUCKETS
        self._current = int(now // self._width)
        self.until = (self._current + 1) * self._width
        # Each bucket: calls, failed, slow.
        self._buckets = [[0, 0, 0] for _ in range(BUCKETS)]

    def record(self, kind: int, now: float) -> None:
        """Record a call in the bucket of `now`."""
        self.drop_old(now)
        current = self._buckets[self._current % BUCKETS]
        failed, slow = kind & FAILED, kind >> 1
        current[0] += 1
        current[1] += failed
        current[2] += slow
        self.calls += 1
        self.failed += failed
        self.slow += slow

    def add_healthy(self, calls: int) -> None:
        """Add the calls to the current bucket, in which all of them ended."""
        self._buckets[self._current % BUCKETS][0] += calls
        self.calls += calls

    def room(self, minimum: int) -> int:
        """Return that healthy calls change nothing before the current bucket ends."""
        return 0 if (self.failed or self.slow) and self.calls < minimum else sys.maxsize

    def dump(self, now: float) -> tuple[Bucket, ...]:
        """Return the buckets that hold calls, with their age."""
        passed = max(int(now // self._width) - self._current, 0)
        kept = (
            ((back + passed) * self._width, self._buckets[(self._current - back) % BUCKETS])
            for back in range(BUCKETS - 1 - passed, -1, -1)
        )
        return tuple(
            Bucket(figures[0], figures[1], figures[2], age) for age, figures in kept if figures[0]
        )

    def load(self, buckets: Sequence[Bucket], now: float) -> None:
        """Load the buckets that are not too old, by their age: window lengths may differ."""
        self.drop_old(now)
        for old in buckets:
            back = round(old.age / self._width)
            if back < BUCKETS:
                into = self._buckets[(self._current - back) % BUCKETS]
                into[0] += old.calls
                into[1] += old.failed
                into[2] += old.slow
                self.calls += old.calls
                self.failed += old.failed
                self.slow += old.slow

    def totals(self, now: float) -> tuple[int, int, int]:
        """Return the totals, less what :meth:`drop_old` would drop."""
        calls, failed, slow = self.calls, self.failed, self.slow
        for passed in self._passed(int(now // self._width)):
            oldest = self._buckets[passed % BUCKETS]
            calls -= oldest[0]
            failed -= oldest[1]
            slow -= oldest[2]
        return calls, failed, slow

    def _passed(self, target: int) -> range:
        """Return the buckets after the current one up to `target`, which replace the oldest."""
        return range(self._current + 1, min(target, self._current + BUCKETS) + 1)

    def drop_old(self, now: float) -> None:
        """Make the bucket of `now` the current one. A thread may pass a time just before it."""
        target = int(now // self._width)
        for passed in self._passed(target):
            oldest = self._buckets[passed % BUCKETS]
            self.calls -= oldest[0]
            self.failed -= oldest[1]
            self.slow -= oldest[2]
            oldest[:] = (0, 0, 0)
        if target > self._current:
            self._current = target
            self.until = (target + 1) * self._width


def make_window(settings: BreakerSettings, now: float) -> Window:
    """Make the empty window that `settings` ask for."""
    if settings.window_calls is not None:
        return CountWindow(settings.window_calls)
    if settings.window_seconds is not None:
        return TimeWindow(settings.window_seconds, now)
    return NoWindow()
