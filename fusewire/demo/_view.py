"""The demo's display while it runs: a picture on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fusewire.breaker import CircuitState
from fusewire.demo._config import Client
from fusewire.demo._course import DOWN
from fusewire.demo._figures import milliseconds
from fusewire.demo._picture import can_draw, draw
from fusewire.demo._words import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.demo._course import Course
    from fusewire.demo._scenario import Display

_FRAME = 0.2  # seconds between updates on a terminal
_LINE = 2.0  # seconds between lines elsewhere
_STEPS = 3  # the last steps that a terminal shows
_RECENT = 5.0  # seconds of payments whose latency is shown


class _Lines:
    """A line for each step, and every other second one with the current figures."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def say(self, at: float, what: str) -> None:
        self._console.print(f"{at:6.1f} s  {what}", highlight=False, soft_wrap=True)

    def show(self, course: Course) -> None:
        now = time.monotonic()
        tally = course.tally
        requests = tally.requests[Client.FUSEWIRE]
        if not requests.asked or now < self._next:
            return
        self._next = now + _LINE
        self._console.print(
            f"{course.now:6.1f} s  server {_shout(course.server_state)}"
            f" | payments: circuit {_circuit(course, 'client')}, asked {len(requests.asked)},"
            f" parked {len(tally.payments.parked)}, waiting {len(tally.payments.waiting)}"
            f" | orders: circuit {_circuit(course, 'orders')},"
            f" handled {len(tally.orders.handled)} of {len(tally.published)},"
            f" waiting {len(tally.orders.waiting)}"
            f" | {_latency_words(course)} | {_failures(course)}",
            highlight=False,
            soft_wrap=True,
        )


class _Live:
    """A picture of the run so far, redrawn a few times a second."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._steps: deque[str] = deque(maxlen=_STEPS)
        self._next = 0.0

    def say(self, at: float, what: str) -> None:
        self._steps.append(f"{at:6.1f} s  {what}")

    def show(self, course: Course) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _FRAME
        up = course.server_state != DOWN
        head = Text.assemble(
            (f"demo {course.now:5.1f} s", "bold"),
            "  server ",
            (_shout(course.server_state), "bold green" if up else "bold white on red"),
            "  circuits: payments ",
            _styled(_circuit(course, "client")),
            ", orders ",
            _styled(_circuit(course, "orders")),
        )
        self._live.update(
            Group(
                head,
                draw(course, self._live.console.width),
                Text(_latency_words(course)),
                *map(Text, self._steps),
            ),
            refresh=True,
        )


@contextmanager
def showing(console: Console) -> Iterator[Display]:
    """Provide the display of the demo on `console` during the block."""
    if not can_draw(console):
        yield _Lines(console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _Live(live)


def _shout(state: str) -> str:
    return state.upper() if state == DOWN else state


def _circuit(course: Course, process: str) -> str:
    state = course.tally.circuits.get(process, CircuitState.CLOSED)
    return state.replace("_", " ").upper() if state is not CircuitState.CLOSED else state


_STYLES = {"closed": "green", "OPEN": "bold white on red", "HALF OPEN": "bold black on yellow"}


def _styled(circuit: str) -> tuple[str, str]:
    return circuit, _STYLES.get(circuit, "bold")


def _latency_words(course: Course) -> str:
    recent = course.tally.curves.recent(Client.FUSEWIRE, course.now, _RECENT)
    return (
        f"the last payments took {milliseconds(recent.p50)} (p50), {milliseconds(recent.p99)} (p99)"
    )


def _failures(course: Course) -> str:
    """Say how many payments the baselines failed to make, as far as their callers know."""
    failed = (
        f"{CLIENTS[client]} {made.failed}"
        for client, made in course.tally.requests.items()
        if client is not Client.FUSEWIRE
    )
    return f"errors without Fusewire: {', '.join(failed)}"
