"""The curves of recovery runs as one picture, an SVG that needs nothing else.

It has no background, and colours that can be read on a light page and on a dark one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.recovery_figures import Curves

Points = list[tuple[float, float]]

COLOURS = ("#2f81f7", "#e5534b", "#3fa266", "#a371f7")
GREY = "#7d8590"
WIDTH, HEIGHT, LEFT, TOP, GAP = 760, 150, 60, 60, 42  # pixels; of each panel
MOST_TICKS = 6
APART = 5.0  # seconds without a value after which a line is broken


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on a panel's side."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies, from 0 to 1; values beyond are put at the end."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return min(1.0, max(0.0, (self._scaled(max(value, self.low)) - low) / (high - low)))

    def ticks(self) -> list[float]:
        """Return some round values, with one in front of each decade if it is logarithmic."""
        if self.logarithmic:
            tens = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [10.0**ten * step for ten in tens for step in (1, 3)]
            return [one for one in found if self.low <= one <= self.high]
        step = 10.0 ** math.floor(math.log10(self.high - self.low))
        for part in (step / 5, step / 2, step, step * 2):
            if (self.high - self.low) / part <= MOST_TICKS:
                step = part
                break
        first = math.ceil(self.low / step)
        return [step * number for number in range(first, math.floor(self.high / step) + 1)]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value


def picture(title: str, runs: dict[str, Curves], *, limit: int, spare: float) -> str:
    """Draw the runs on top of each other.

    Args:
        title: what they have in common.
        runs: the curves, by what is put in the legend.
        limit: the server's limit of queued calls, drawn as a line.
        spare: the capacity that live calls leave, in calls a second, drawn as a line.
    """
    every = list(runs.values())
    time = Axis(-5, max(at for one in every for at, _ in one.queued))
    queue = Axis(0, 1.05 * max(limit, *(_highest(one.queued) for one in every)))
    rate = Axis(0, 1.05 * max(spare, *(_highest(one.replayed) for one in every)))
    percent = Axis(0, 105)
    taken = [value * 1000 for one in every for _, value in (*one.p50, *one.p99)] or [1.0]
    latency = Axis(0.8 * max(1.0, min(taken)), 1.2 * max(taken), logarithmic=True)
    bottom = TOP + 4 * (HEIGHT + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 20} {bottom}">',
        f'<g font-family="sans-serif" font-size="12" fill="{GREY}">',
        f"<title>{escape(title)}</title>",
        f'<text x="{LEFT}" y="16" font-size="14">{escape(title)}</text>',
        *_legend(list(runs)),
        *_panel(0, "calls queued at the server, and its limit", queue, time, limit),
        *_panel(1, "replays per second, and the spare capacity", rate, time, spare),
        *_panel(2, "live calls, ms: median, and p99 dashed", latency, time, None),
        *_panel(3, "live calls that failed or were kept out, %", percent, time, None),
    ]
    for one, colour in zip(every, COLOURS, strict=False):
        stroke = f'stroke="{colour}"'
        dashed = f'{stroke} stroke-dasharray="5 3"'
        lines += [
            _curve(0, one.queued, (time, queue), stroke),
            _curve(1, one.replayed, (time, rate), stroke),
            _curve(2, _times(1000, one.p50), (time, latency), stroke),
            _curve(2, _times(1000, one.p99), (time, latency), dashed),
            _curve(3, _times(100, one.failed), (time, percent), stroke),
        ]
    return "\n".join([*lines, "</g></svg>", ""])


def _highest(points: Points) -> float:
    return max((value for _, value in points), default=0.0)


def _legend(names: list[str]) -> Iterator[str]:
    x = LEFT
    for name, colour in zip(names, COLOURS, strict=False):
        yield f'<rect x="{x}" y="28" width="18" height="4" fill="{colour}"/>'
        yield f'<text x="{x + 24}" y="34">{escape(name)}</text>'
        x += 50 + 7 * len(name)


def _bottom(panel: int) -> float:
    return TOP + HEIGHT + panel * (HEIGHT + GAP)


def _x(time: Axis, at: float) -> float:
    return LEFT + WIDTH * time.share(at)


def _y(panel: int, axis: Axis, value: float) -> float:
    return _bottom(panel) - HEIGHT * axis.share(value)


def _panel(panel: int, title: str, axis: Axis, time: Axis, mark: float | None) -> Iterator[str]:
    bottom, right = _bottom(panel), LEFT + WIDTH
    yield f'<text x="{LEFT}" y="{bottom - HEIGHT - 6}">{escape(title)}</text>'
    yield (
        f'<path d="M{LEFT} {bottom - HEIGHT}V{bottom}H{right}" fill="none" stroke="{GREY}" '
        'stroke-width="1"/>'
    )
    for tick in axis.ticks():
        y = _y(panel, axis, tick)
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        yield (
            f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{GREY}" stroke-width="0.5" '
            'stroke-opacity="0.35"/>'
        )
    for tick in time.ticks():
        x = _x(time, tick)
        yield f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{tick:g} s</text>'
    if mark is not None:
        y = _y(panel, axis, mark)
        yield (
            f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{GREY}" stroke-width="1.5" '
            'stroke-dasharray="2 4"/>'
        )


def _times(factor: float, points: Points) -> Points:
    return [(at, factor * value) for at, value in points]


def _curve(panel: int, points: Points, axes: tuple[Axis, Axis], stroke: str) -> str:
    time, axis = axes
    path = ""
    last = -math.inf
    for at, value in points:
        step = "L" if at - last <= APART else "M"
        path += f"{step}{_x(time, at):.1f} {_y(panel, axis, value):.1f}"
        last = at
    return f'<path d="{path}" fill="none" stroke-width="1.5" {stroke}/>' if path else ""
