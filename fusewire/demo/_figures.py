"""Arithmetic on durations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_NO_FRACTION = 100  # milliseconds from which their fractions tell nothing


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long payments took, in milliseconds; None without any."""

    p50: float | None
    p99: float | None


def latencies(took: Iterable[float]) -> Latencies:
    """Return the percentiles of durations in seconds."""
    times = sorted(took)
    return Latencies(_milliseconds(percentile(times, 0.5)), _milliseconds(percentile(times, 0.99)))


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the nearest-rank percentile, `share` from 0 to 1; None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    rank = max(-(-len(ordered) * share // 1), 1)  # rounded up
    return ordered[int(rank) - 1]


def milliseconds(value: float | None) -> str:
    """Return a duration in milliseconds as people read it."""
    if value is None:
        return "-"
    return f"{value:,.0f} ms" if value >= _NO_FRACTION else f"{value:.1f} ms"


def in_words(seconds: float | None) -> str:
    """Return a duration in seconds as people read it."""
    return milliseconds(_milliseconds(seconds))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
