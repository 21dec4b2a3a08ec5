"""Durations counted in buckets, each 15 % wider than the one before.

So a quantile is exact to 15 % whatever the scale, and a method takes some twenty counts.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GROWTH = 1.15
LOWEST = 1e-4
"""Seconds: the upper bound of the first bucket."""

BOUNDS: tuple[float, ...] = tuple(LOWEST * GROWTH**number for number in range(128))
"""Upper bounds of the buckets in seconds, from 0.1 ms to 85 min. One more bucket has none."""

_bucket = partial(bisect_left, BOUNDS)

# From 1 ms to 11 s in steps of about two, near 1, 2.5, 5 and 10 of each power of ten.
_EXPORTED = (17, 23, 28, 33, 40, 45, 50, 56, 61, 66, 73, 78, 83)

EXPORT_BOUNDS: tuple[float, ...] = tuple(float(f"{BOUNDS[number]:.3g}") for number in _EXPORTED)
"""Upper bounds in seconds of the 14 buckets that monitoring gets; the last bucket has none.

Each is a bound of :data:`BOUNDS`, so that nothing has to be estimated. They are rounded to three
digits, so that they are the same text on every machine."""

_EXPORT_BUCKET = tuple(bisect_left(_EXPORTED, number) for number in range(len(BOUNDS) + 1))
"""The bucket that monitoring gets, by the number of the bucket in which a call was counted."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long calls took, since they were first measured.

    Attributes:
        bounds: upper bounds of the buckets, in seconds, ascending. The last bucket has none.
        counts: calls in each bucket, one more than there are bounds. ``counts[0]`` took at most
            ``bounds[0]``. No count ever decreases.
        seconds: the durations of all calls together.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    seconds: float

    @property
    def calls(self) -> int:
        """How many calls there are in all buckets."""
        return sum(self.counts)

    @property
    def cumulative(self) -> tuple[int, ...]:
        """For each bucket, how many calls are in it and in those before it; the last has all."""
        return tuple(accumulate(self.counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDurations:
    """How long the calls of a breaker took, in few enough buckets for monitoring.

    Attributes:
        answered: all calls that the dependency answered, in the buckets of
            :data:`EXPORT_BOUNDS`.
        failed: all calls that failed.
        restored: the part of both that came from a snapshot; None for nothing.
    """

    answered: Histogram
    failed: Histogram
    restored: CallDurations | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodDurations:
    """What is known of one method's durations, as a value for a snapshot.

    Attributes:
        method: its path; empty for calls without one.
        answered: all calls that the dependency answered.
        failed: all calls that failed.
        baseline: the live calls from which the baseline is taken.
    """

    method: str
    answered: Histogram
    failed: Histogram
    baseline: Histogram


class Counts:
    """How many durations fell into each bucket.

    Attributes:
        by_bucket: counts by the number of the bucket. Empty buckets are absent.
        seconds: their sum.
    """

    __slots__ = ("by_bucket", "seconds")

    def __init__(self) -> None:
        self.by_bucket: dict[int, int] = {}
        self.seconds = 0.0

    @property
    def calls(self) -> int:
        """How many there are. Not while another thread counts."""
        return sum(self.by_bucket.values())

    def add(self, seconds: float, calls: int) -> None:
        """Count `calls` into the bucket of `seconds`, but not into the sum."""
        self._add(_bucket(seconds), calls)

    def _add(self, bucket: int, calls: int) -> None:
        self.by_bucket[bucket] = self.by_bucket.get(bucket, 0) + calls

    def include(self, other: Counts) -> None:
        """Count what `other` has counted."""
        for bucket, calls in other.by_bucket.copy().items():  # another thread may be counting
            self._add(bucket, calls)
        self.seconds += other.seconds

    def load(self, histogram: Histogram) -> None:
        """Count what `histogram` has, whose bounds may be those of another release."""
        for bound, calls in filled(histogram):
            self.add(bound, calls)
        self.seconds += histogram.seconds

    def quantile(self, share: float) -> float:
        """Return the seconds that `share` of the calls took at most. There must be a call."""
        wanted = share * self.calls
        buckets = sorted(self.by_bucket)
        ranks = tuple(accumulate(self.by_bucket[bucket] for bucket in buckets))
        at = bisect_left(ranks, wanted)
        lower, upper = _edges(buckets[at])
        return upper - (upper - lower) * (ranks[at] - wanted) / self.by_bucket[buckets[at]]

    def mean(self, at_most: float) -> float:
        """Return the mean in seconds, with what is longer counted as `at_most`."""
        total = sum(
            min(sum(_edges(bucket)) / 2, at_most) * n for bucket, n in self.by_bucket.items()
        )
        return total / self.calls

    def histogram(self) -> Histogram:
        """Return the counts of all buckets."""
        counts = tuple(self.by_bucket.get(bucket, 0) for bucket in range(len(BOUNDS) + 1))
        return Histogram(BOUNDS, counts, self.seconds)


def counted(seconds: Sequence[float]) -> Counts:
    """Return the counts of these durations."""
    counts = Counts()
    counts.seconds = sum(seconds)
    # Sorted, because that is three times as fast as looking for the bucket of each.
    ordered = sorted(seconds)
    begin = 0
    while begin < len(ordered):
        bucket = _bucket(ordered[begin])
        upper = BOUNDS[bucket] if bucket < len(BOUNDS) else math.inf
        end = bisect_right(ordered, upper)
        counts.by_bucket[bucket] = end - begin
        begin = end
    return counts


def filled(histogram: Histogram) -> tuple[tuple[float, int], ...]:
    """Return the buckets that have calls: the upper bound in seconds, and how many calls."""
    bounds = (*histogram.bounds, histogram.bounds[-1] * GROWTH)
    pairs = zip(bounds, histogram.counts, strict=True)
    return tuple(pair for pair in pairs if pair[1])


def merged(parts: Iterable[Counts]) -> Counts:
    """Return the counts of all `parts` together."""
    whole = Counts()
    for part in parts:
        whole.include(part)
    return whole


def for_export(parts: Iterable[Counts]) -> Histogram:
    """Return the counts of all `parts` together, in the buckets that monitoring gets."""
    counts = [0] * (len(EXPORT_BOUNDS) + 1)
    seconds = 0.0
    for part in parts:
        for bucket, calls in part.by_bucket.copy().items():  # another thread may be counting
            counts[_EXPORT_BUCKET[bucket]] += calls
        seconds += part.seconds
    return Histogram(EXPORT_BOUNDS, tuple(counts), seconds)


def _edges(bucket: int) -> tuple[float, float]:
    """Return the bounds of a bucket, in seconds; for the first and the last, near ones."""
    upper = BOUNDS[min(bucket, len(BOUNDS) - 1)]
    return upper / GROWTH, upper
