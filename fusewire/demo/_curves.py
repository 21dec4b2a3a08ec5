"""What happened when: counts and durations in steps of time, cheap to note and to read."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fusewire.demo._figures import Latencies, latencies, percentile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusewire.demo._config import Client

STEP: Final = 0.1
"""Seconds that are noted as one; steps of curves are multiples of it."""


@dataclass(frozen=True, slots=True)
class Point:
    """What happened in one step.

    Attributes:
        at: when it began, in seconds since the load began.
        answers: how many payments that were asked for in it got which result, by client.
        waiting: how many payments and orders were parked at its end.
        took: the median and the 99th percentile of how long those payments took, in seconds, by
            client; absent for a client without any.
    """

    at: float
    answers: Mapping[Client, Counter[str]]
    waiting: Mapping[str, int]
    took: Mapping[Client, tuple[float, float]]


@dataclass(slots=True)
class _Cell:
    answers: dict[Client, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    took: dict[Client, list[float]] = field(default_factory=lambda: defaultdict(list))
    waiting: dict[str, int] = field(default_factory=dict)


class Curves:
    """Counts and durations by time. All times are in seconds since the load began."""

    def __init__(self) -> None:
        self._cells: defaultdict[int, _Cell] = defaultdict(_Cell)

    def note_answer(self, client: Client, begin: float, took: float, result: str) -> None:
        """Note how a payment that was asked for at `begin` was answered."""
        cell = self._cells[math.floor(begin / STEP)]
        cell.answers[client][result] += 1
        cell.took[client].append(took)

    def note_waiting(self, what: str, at: float, count: int) -> None:
        """Note how many payments or orders are parked from `at` on."""
        self._cells[math.floor(at / STEP)].waiting[what] = count

    def points(self, end: float, most: int) -> tuple[float, list[Point]]:
        """Return the seconds of a step, and the points from 0 to `end`, at most `most` of them."""
        multiple = max(math.ceil(end / most / STEP), 1)
        points = []
        waiting: dict[str, int] = {}
        for first in range(0, math.ceil(end / STEP), multiple):
            point = Point(first * STEP, defaultdict(Counter), {}, {})
            took: dict[Client, list[float]] = defaultdict(list)
            for index in range(first, first + multiple):
                cell = self._cells.get(index)
                if cell is None:
                    continue
                waiting |= cell.waiting
                for client, counts in cell.answers.items():
                    point.answers[client].update(counts)
                    took[client] += cell.took[client]
            points.append(
                Point(
                    point.at,
                    point.answers,
                    dict(waiting),
                    {
                        client: (percentile(times, 0.5) or 0.0, percentile(times, 0.99) or 0.0)
                        for client, times in took.items()
                    },
                )
            )
        return multiple * STEP, points

    def recent(self, client: Client, now: float, seconds: float) -> Latencies:
        """Return how long payments of the last seconds took."""
        first, last = math.floor((now - seconds) / STEP), math.floor(now / STEP)
        cells = (self._cells[index] for index in range(first, last + 1) if index in self._cells)
        return latencies(took for cell in cells for took in cell.took[client])
