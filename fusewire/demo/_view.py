"""The demo's display: live on a terminal, in lines elsewhere; and the report at the end."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fusewire.breaker import CircuitState
from fusewire.demo._tally import percentile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from fusewire.demo._report import Report
    from fusewire.demo._scenario import Display
    from fusewire.demo._tally import Tally

_FRAME = 0.2  # seconds between updates on a terminal
_LINE = 2.0  # seconds between lines elsewhere
_STEPS = 8  # the last steps that a terminal shows

_COLORS = {
    CircuitState.CLOSED: "green",
    CircuitState.OPEN: "bold red",
    CircuitState.HALF_OPEN: "yellow",
}


class _Lines:
    """A line for each step, and every other second one with the current figures."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def say(self, at: float, what: str) -> None:
        self._console.print(f"{at:6.1f} s  {what}", highlight=False)

    def show(self, at: float, tally: Tally, *, server_up: bool) -> None:
        now = time.monotonic()
        if not tally.asked or now < self._next:
            return
        self._next = now + _LINE
        self._console.print(
            f"{at:6.1f} s  server {'up' if server_up else 'DOWN'}"
            f" | payments: circuit {tally.circuits.get('client', '-')}, asked {len(tally.asked)},"
            f" parked {len(tally.payments.parked)}, made later {len(tally.payments.replayed)}"
            f" | orders: circuit {tally.circuits.get('orders', '-')},"
            f" handled {len(tally.orders.handled)} of {len(tally.published)},"
            f" parked {len(tally.orders.parked)}"
            f" | {_latency_words(tally)}",
            highlight=False,
            soft_wrap=True,
        )


class _Picture:
    """A table of the current figures, redrawn a few times a second."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._steps: deque[str] = deque(maxlen=_STEPS)
        self._next = 0.0

    def say(self, at: float, what: str) -> None:
        self._steps.append(f"{at:6.1f} s  {what}")

    def show(self, at: float, tally: Tally, *, server_up: bool) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _FRAME
        self._live.update(self._draw(at, tally, server_up=server_up), refresh=True)

    def _draw(self, at: float, tally: Tally, *, server_up: bool) -> RenderableType:
        table = Table(title=f"fusewire demo, {at:.0f} s", title_justify="left", expand=False)
        table.add_column("")
        for column in ("payments", "orders"):
            table.add_column(column, justify="right", min_width=12)
        up = Text("up", "green") if server_up else Text("down", "bold red")
        table.add_row("server", up, up)
        table.add_row("circuit", *(_circuit(tally, name) for name in ("client", "orders")))
        for what, payments, orders in (
            ("asked", len(tally.asked), len(tally.published)),
            ("answered OK, handled", tally.results("ok"), len(tally.orders.handled)),
            ("answered PENDING", tally.results("pending"), None),
            ("answered with an error", tally.results("error"), None),
            ("parked", len(tally.payments.parked), len(tally.orders.parked)),
            ("replayed", len(tally.payments.replayed), len(tally.orders.replayed)),
            ("waiting now", len(tally.payments.waiting), len(tally.orders.waiting)),
        ):
            table.add_row(what, f"{payments:,}", "" if orders is None else f"{orders:,}")
        return Group(table, Text(_latency_words(tally)), *map(Text, self._steps))


@contextmanager
def showing(console: Console) -> Iterator[Display]:
    """Provide the display of the demo on `console` during the block."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _Picture(live)


def show_report(console: Console, report: Report, timeline: Sequence[tuple[float, str]]) -> None:
    """Show what happened, and the final figures."""
    course = Table(title="What happened", title_justify="left")
    course.add_column("seconds", justify="right")
    course.add_column("")
    for at, what in timeline:
        course.add_row(f"{at:.2f}", what)
    console.print(course)
    console.print(_ledger(report))
    console.print(_latencies(report))
    for remark in report.remarks:
        console.print(remark, highlight=False)
    if report.faults:
        console.print(Text("FAILED: " + "; ".join(report.faults), "bold red"))
    else:
        console.print(
            Text("Nothing was lost, nothing was charged twice, and all that was parked was made.")
        )


def _ledger(report: Report) -> Table:
    table = Table(title="The ledger, by the server's own records", title_justify="left")
    table.add_column("")
    for column in ("payments", "orders"):
        table.add_column(column, justify="right")
    for what, payments, orders in (
        ("asked", report.asked, report.orders_asked),
        ("charged by the server; handled", report.charged, report.orders_handled),
        ("parked, at least once", report.parked, report.orders_parked),
        ("replayed", report.replayed, None),
        ("lost", report.lost, report.orders_lost),
        ("charged twice", report.charged_twice, report.orders_charged_twice),
        ("failed: got an error", report.failed, None),
        ("asked again, and not charged again", report.repeated, None),
    ):
        table.add_row(what, f"{payments:,}", "" if orders is None else f"{orders:,}")
    return table


def _latencies(report: Report) -> Table:
    table = Table(title="Latency of payments", title_justify="left")
    table.add_column("outage")
    for column in ("p50", "p99"):
        table.add_column(column, justify="right")
    for phase, latencies in report.latency_ms.items():
        table.add_row(phase, *(_ms(value) for value in (latencies.p50, latencies.p99)))
    return table


def _circuit(tally: Tally, process: str) -> Text:
    state = tally.circuits.get(process, "-")
    return Text(state, _COLORS.get(CircuitState(state), "bold") if state != "-" else "dim")


def _latency_words(tally: Tally) -> str:
    recent = [took * 1000 for took in tally.recent(time.monotonic())]
    return (
        f"the last payments took {_ms(percentile(recent, 0.5))} (p50), "
        f"{_ms(percentile(recent, 0.99))} (p99)"
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
