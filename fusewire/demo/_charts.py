"""The curves of the report page, as shapes: where what stands in an SVG. No markup is made here.

Lengths are in the SVG's units, from its top left corner.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fusewire.demo._course import DOWN
from fusewire.demo._words import SHORT_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fusewire.demo._course import Stretch

WIDTH: Final = 960.0
LEFT: Final = 136.0
RIGHT: Final = 32.0

_TOP = 34.0  # room for the names of the bands
_GAP = 30.0  # between panels, with the title of the lower one
_STRIP = 22.0  # height of a strip
_AXIS = 26.0  # room for the time axis
_LEAST_BAND = 2.0  # so that it can be seen
_LABEL_WIDTH = 7.5  # of a character
_MOST_TICKS = 5


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis: where it stands, and what it says."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Shape:
    """A filled area or a line. Its kind names its look; its label, if any, stands at `x`, `y`."""

    kind: str
    path: str
    label: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of a strip; `words` are empty where there is no room."""

    x: float
    width: float
    state: str
    words: str


@dataclass(frozen=True, slots=True)
class Strip:
    """The states of something over time."""

    name: str
    y: float
    height: float
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart of a figure."""

    title: str
    y: float
    height: float
    ticks: Sequence[Tick]
    areas: Sequence[Shape] = ()
    lines: Sequence[Shape] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time, one for each step; None where there is none."""

    kind: str
    label: str
    values: Sequence[float | None]


@dataclass(slots=True)
class Figure:
    """Charts and strips over one time axis.

    Args:
        end: seconds that the axis spans.
        step: seconds of one value of a series.
        server: when the server was up and down: the time that it was down is marked.
    """

    end: float
    step: float
    server: Sequence[Stretch]
    height: float = _TOP
    strips: list[Strip] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)

    def x(self, at: float) -> float:
        """Return where a time stands."""
        return _round(LEFT + (WIDTH - LEFT - RIGHT) * min(at / self.end, 1.0))

    @property
    def bands(self) -> list[Bar]:
        """Where the server was down: the longest time says how long, others are restarts."""
        down = [one for one in self.server if one.state == DOWN]
        longest = max((one.end - one.begin for one in down), default=0.0)
        bands = []
        for one in down:
            x, lasted = self.x(one.begin), one.end - one.begin
            words = f"server down, {lasted:.1f} s" if lasted == longest else "restart"
            width = max(_round(self.x(one.end) - x), _LEAST_BAND)
            bands.append(Bar(x, width, one.state, words))
        return bands

    @property
    def times(self) -> list[Tick]:
        """The marks of the time axis."""
        return [Tick(self.x(at), f"{at:g} s") for at in _nice(self.end, 9)]

    def add_strip(self, name: str, stretches: Iterable[Stretch]) -> None:
        """Add a strip below what is there."""
        bars = []
        for stretch in stretches:
            x, end = self.x(stretch.begin), self.x(stretch.end)
            names = (stretch.state.replace("_", " "), SHORT_STATES.get(stretch.state, ""))
            words = next((name for name in names if len(name) * _LABEL_WIDTH < end - x), "")
            bars.append(Bar(x, _round(end - x), stretch.state, words))
        self.strips.append(Strip(name, self.height, _STRIP, bars))
        self.height += _STRIP + 4

    def add_stack(self, title: str, height: float, series: Sequence[Series]) -> None:
        """Add a chart of areas that stand on each other, the first at the bottom."""
        top = self._begin_panel()
        sums = [sum(value or 0.0 for value in values) for values in _columns(series)]
        ticks = _nice(max(sums, default=0.0) * 1.05, _MOST_TICKS)
        most = max(ticks[-1], max(sums, default=0.0), 1.0)

        def y(value: float) -> float:
            return _round(top + height * (1 - value / most))

        below = [0.0] * len(sums)
        areas = []
        for one in series:
            above = [low + (value or 0.0) for low, value in zip(below, one.values, strict=True)]
            areas.append(self._area(one, below, above, y))
            below = above
        self._end_panel(
            Panel(title, top, height, [Tick(y(tick), f"{tick:,.0f}") for tick in ticks], areas)
        )

    def add_log_lines(self, title: str, height: float, series: Sequence[Series]) -> None:
        """Add a chart of lines of milliseconds, on a logarithmic scale from 1 ms on."""
        top = self._begin_panel()
        most = max((value or 0.0 for one in series for value in one.values), default=0.0)
        decades = max(math.log10(max(most, 1.0)), 1.0)

        def y(value: float) -> float:
            return _round(top + height * (1 - math.log10(max(value, 1.0)) / decades))

        ticks = [Tick(y(10**decade), f"{10**decade:,} ms") for decade in range(int(decades) + 1)]
        lines = [self._line(one, y) for one in series]
        self._end_panel(Panel(title, top, height, ticks, lines=lines))

    def _begin_panel(self) -> float:
        return self.height + _GAP

    def _end_panel(self, panel: Panel) -> None:
        self.panels.append(panel)
        self.height = panel.y + panel.height

    @property
    def whole_height(self) -> float:
        """The height with the time axis."""
        return self.height + _AXIS

    def _area(
        self,
        series: Series,
        below: Sequence[float],
        above: Sequence[float],
        y: Callable[[float], float],
    ) -> Shape:
        """Draw an area between two steplines, in one closed part for each run of columns."""
        parts = []
        widest: Sequence[int] = ()
        for filled, group in itertools.groupby(
            range(len(above)), lambda column: above[column] > below[column]
        ):
            run = list(group)
            if not filled:
                continue
            upper = [f"V{y(above[column])}H{self.x((column + 1) * self.step)}" for column in run]
            lower = [f"V{y(below[column])}H{self.x(column * self.step)}" for column in run[::-1]]
            parts.append(
                f"M{self.x(run[0] * self.step)} {y(below[run[0]])}{''.join(upper + lower)}Z"
            )
            widest = max(widest, run, key=len)
        x, at, label = 0.0, 0.0, ""
        if widest:
            middle = widest[len(widest) // 2]
            x = _round((self.x(widest[0] * self.step) + self.x((widest[-1] + 1) * self.step)) / 2)
            at = _round((y(below[middle]) + y(above[middle])) / 2 + 4)
            room = self.x(len(widest) * self.step) - LEFT
            tall = y(below[middle]) - y(above[middle])
            fits = room > len(series.label) * _LABEL_WIDTH and tall > _STRIP * 0.8
            label = series.label if fits else ""
        return Shape(series.kind, "".join(parts), label, x, at)

    def _line(self, series: Series, y: Callable[[float], float]) -> Shape:
        parts = []
        drawn = False
        x, at = 0.0, 0.0
        for column, value in enumerate(series.values):
            if value is None:
                drawn = False
                continue
            x, at = self.x((column + 1) * self.step), y(value)
            parts.append(f"V{at}H{x}" if drawn else f"M{self.x(column * self.step)} {at}H{x}")
            drawn = True
        return Shape(series.kind, "".join(parts), series.label, x, at)


def _columns(series: Sequence[Series]) -> Iterable[tuple[float | None, ...]]:
    return zip(*(one.values for one in series), strict=True)


def _nice(most: float, ticks: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten, from 0 up to `most`."""
    if most <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most / ticks))
    size = next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= ticks)
    return [round(count * size, 6) for count in range(math.floor(most / size) + 1)]


def _round(length: float) -> float:
    return round(length, 1)
