"""What a panel of the Grafana dashboard is: curves, and the selectors of their queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

CIRCUITS = 'job=~"$job", circuit_name=~"$circuit"'
QUEUES = 'job=~"$job", queue=~"$queue"'
REPLAYS = 'job=~"$job", queue=~"$queue", circuit_name=~"$circuit|"'
RATE = "[$__rate_interval]"


class Curve(NamedTuple):
    """A query of a panel, and what its curves are called."""

    query: str
    legend: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A panel of curves.

    Attributes:
        title: its title.
        about: what it shows.
        queries: what is drawn.
        unit: Grafana's name of the unit.
        stacked: whether the curves stand on each other.
        most: the upper end of the axis, if it is known.
    """

    title: str
    about: str
    queries: Sequence[Curve]
    unit: str = "short"
    stacked: bool = False
    most: float | None = None
