"""What a terminal shows at the end: what happened, the final figures, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fusewire.demo._figures import milliseconds
from fusewire.demo._picture import can_draw, draw
from fusewire.demo._words import CLIENTS, comparison, ledger_rows, verdict

if TYPE_CHECKING:
    from rich.console import Console

    from fusewire.demo._course import Course
    from fusewire.demo._report import Report


def show_report(console: Console, report: Report, course: Course) -> None:
    """Show what happened, the final figures, and last what is seen at a glance."""
    happened = _table("What happened")
    happened.add_column("seconds", justify="right")
    happened.add_column("")
    for at, what in course.timeline():
        happened.add_row(f"{at:.2f}", what)
    console.print(happened)
    console.print(_ledger(report))
    console.print(_latencies(report))
    for sentence in (*report.why_p99, *report.remarks):
        console.print(sentence, highlight=False, markup=False)
    if can_draw(console):
        console.print(draw(course, console.width))
    console.print(_comparison(report))
    well, words = verdict(report)
    console.print(
        Panel(
            Text(f"{'✔' if well else '✘'} {words}", "bold"),
            title="Verdict",
            title_align="left",
            border_style="green" if well else "red",
            style="green" if well else "red",
            expand=False,
        )
    )


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _ledger(report: Report) -> Table:
    table = _table("The ledger, by the server's own records")
    table.add_column("")
    for column in ("payments", "orders"):
        table.add_column(column, justify="right")
    for what, payments, orders in ledger_rows(report):
        table.add_row(what, payments, orders)
    return table


def _latencies(report: Report) -> Table:
    table = _table("Latency of payments")
    table.add_column("outage")
    for column in ("p50", "p99"):
        table.add_column(column, justify="right")
    for phase, took in report.latency_ms.items():
        table.add_row(phase, milliseconds(took.p50), milliseconds(took.p99))
    return table


def _comparison(report: Report) -> Table:
    table = _table("The same load on the same server, with and without Fusewire")
    table.add_column("payments", no_wrap=True)
    for client in report.clients:
        table.add_column(CLIENTS[client], justify="right")
    for row in comparison(list(report.clients.values())):
        table.add_row(*row)
    return table
