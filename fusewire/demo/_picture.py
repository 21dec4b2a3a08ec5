"""The picture of a run on a terminal: curves, and the states of server and circuits, over time."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from fusewire.demo._config import BASELINES, Client
from fusewire.demo._course import DOWN
from fusewire.demo._tally import SUBJECTS
from fusewire.demo._words import CLIENTS, SHORT_STATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from fusewire.demo._course import Course, Stretch
    from fusewire.demo._curves import Point

_GUTTER = 17  # columns of labels to the left
_WIDEST = 140  # columns of curves
_LEVELS = " ▁▂▃▄▅▆▇█"
_DOWN = " on grey23"  # behind all curves while the server is down
_FASTEST_MS = 1.0  # the foot of the latency curve, which is logarithmic
_SLOWEST_MS = 2000.0  # its top

_STATES = {
    "up": "green",
    "down": "white on red",
    "closed": "green",
    "open": "white on red",
    "half_open": "black on yellow",
}

_SHORT = {**SHORT_STATES, "open": "op"}  # where there is no room for a name


class _Look(NamedTuple):
    """How a layer looks: its color, and its full cells, which differ without colors too."""

    color: str
    character: str
    style: str


_OK = _Look("green", "█", "green")
_PENDING = _Look("yellow", "▓", "yellow")
_ERROR = _Look("red", "x", "white on red")
_LATENCY = _Look("cyan", "█", "cyan")
_RESULTS = {"ok": _OK, "pending": _PENDING, "error": _ERROR}
_WAITING = {
    "payments": _Look("yellow", "█", "yellow"),
    "orders": _Look("magenta", "▒", "magenta"),
}

_Layers = list[tuple[float, _Look]]
"""From bottom to top: the height of a layer, as a share of the chart, and its look."""

_Label = tuple[str, _Look | None]
"""What stands beside a row of a chart, and which look it explains."""


def can_draw(console: Console) -> bool:
    """Return whether the picture can be shown: on a terminal that has its characters."""
    return console.is_terminal and not console.options.ascii_only


def draw(course: Course, width: int) -> Text:
    """Draw the run so far, in at most `width` columns.

    The picture is laid out for the whole run, and fills from the left.
    """
    step, points = course.tally.curves.points(
        course.expected_end, max(min(width - _GUTTER - 1, _WIDEST), 10)
    )
    columns = len(points)
    now = course.now
    points = [point for point in points if point.at <= now]
    states = {
        "server": [_state_in(course.server(now), point.at, step) for point in points],
        **{
            f"circuit: {subject}": [
                _state_in(course.circuit(process, now), point.at, step) for point in points
            ]
            for process, subject in SUBJECTS.items()
        },
    }
    down = [state == DOWN for state in states["server"]]
    picture = Text(no_wrap=True, overflow="crop")
    for labels, layers in _charts(course, points):
        picture.append(_chart(layers, down, labels))
    for label, strip in states.items():
        picture.append(f"{label:<{_GUTTER}}")
        picture.append(_strip(strip))
        picture.append("\n")
    picture.append(_axis(columns, step))
    return picture


def _charts(
    course: Course, points: Sequence[Point]
) -> Iterator[tuple[Sequence[_Label], list[_Layers]]]:
    """Return the labels of each chart, one for each row, and its layers by column."""
    yield (
        (("payments asked", None), ("OK", _OK), ("PENDING", _PENDING)),
        _requests(points, Client.FUSEWIRE),
    )
    most = max((sum(point.waiting.values()) for point in points), default=0)
    yield (
        (("waiting", None), (f"most: {most:,}", None), *_WAITING.items()),
        [
            [(point.waiting.get(what, 0) / max(most, 1), look) for what, look in _WAITING.items()]
            for point in points
        ],
    )
    slowest = [point.took.get(Client.FUSEWIRE) for point in points]
    yield (
        (("p99 latency", None), ("log, 1 ms to 2 s", None)),
        [[(_on_scale(took[1] * 1000), _LATENCY)] if took else [] for took in slowest],
    )
    for client in BASELINES:
        failed = course.tally.requests[client].failed
        labels = ((CLIENTS[client], None), (f"{failed:,} errors", _ERROR))
        yield labels, _requests(points, client)


def _requests(points: Sequence[Point], client: Client) -> list[_Layers]:
    most = max((sum(point.answers[client].values()) for point in points), default=0)
    return [
        [(point.answers[client][result] / max(most, 1), look) for result, look in _RESULTS.items()]
        for point in points
    ]


def _chart(columns: Sequence[_Layers], down: Sequence[bool], labels: Sequence[_Label]) -> Text:
    chart = Text()
    height = len(labels)
    for row, (words, look) in zip(reversed(range(height)), labels, strict=True):
        if look is not None:
            chart.append(look.character, look.style)
            chart.append(" ")
        chart.append(f"{words:<{_GUTTER - (2 if look else 0)}}", "" if row == height - 1 else "dim")
        for layers, is_down in zip(columns, down, strict=True):
            character, style = _cell(layers, row, height)
            chart.append(character, style + (_DOWN if is_down and " on " not in style else ""))
        chart.append("\n")
    return chart


def _cell(layers: _Layers, row: int, height: int) -> tuple[str, str]:
    """Return the character and the style of one cell; row 0 is the lowest."""
    total = sum(share for share, _ in layers) * height - row
    level = math.ceil(min(max(total, 0.0), 1.0) * (len(_LEVELS) - 1))
    full = level == len(_LEVELS) - 1
    middle = row + min(max(total, 0.0), 1.0) / 2
    top = 0.0
    for share, look in layers:
        top += share * height
        if middle <= top and share:
            return (look.character, look.style) if full else (_LEVELS[level], look.color)
    return _LEVELS[level], "default"


def _state_in(stretches: Sequence[Stretch], begin: float, step: float) -> str:
    """Return the state of a column. However short the server is down, its column shows it."""
    overlapping = [one for one in stretches if one.begin < begin + step and begin < one.end]
    if any(one.state == DOWN for one in overlapping):
        return DOWN
    middle = begin + step / 2
    return next((one.state for one in overlapping if middle < one.end), stretches[-1].state)


def _strip(states: Sequence[str]) -> Text:
    """Draw states as bars with their names in them, where there is room."""
    strip = Text()
    for state, same in itertools.groupby(states):
        room = len(list(same))
        name = state.replace("_", " ")
        shown = name if len(name) <= room else _SHORT.get(state, "")
        strip.append(f"{shown[:room]:^{room}}", _STATES[state])
    return strip


def _axis(columns: int, step: float) -> Text:
    axis = [" "] * columns
    every = max(columns // 6, 1)
    for column in range(0, columns, every):
        mark = f"|{column * step:.0f} s"
        if column + len(mark) <= columns:
            axis[column : column + len(mark)] = mark
    return Text(" " * _GUTTER + "".join(axis), "dim")


def _on_scale(milliseconds: float) -> float:
    """Return where a duration stands on the logarithmic scale, from 0 to 1."""
    share = math.log(max(milliseconds, _FASTEST_MS) / _FASTEST_MS) / math.log(
        _SLOWEST_MS / _FASTEST_MS
    )
    return min(share, 1.0)
