"""What the terminal and the page call things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fusewire.demo._config import Client
from fusewire.demo._figures import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fusewire.demo._judgement import Judgement
    from fusewire.demo._report import Report

CLIENTS: Final = {
    Client.FUSEWIRE: "Fusewire",
    Client.BARE: "Bare client",
    Client.RETRYING: "gRPC's retries",
}

SHORT_STATES: Final = {"half_open": "½"}
"""Names of states where there is little room."""


def comparison(clients: Sequence[Judgement]) -> list[list[str]]:
    """Return the rows that compare clients: what is counted, and the count of each."""
    rows = [
        ("asked for", [judged.asked for judged in clients]),
        ("made once, and the caller knows it", [judged.made for judged in clients]),
        ("of these later, after PENDING", [judged.later for judged in clients]),
        ("lost: an error, and not charged", [judged.lost for judged in clients]),
        ("in doubt: an error, and charged", [judged.in_doubt for judged in clients]),
        ("charged twice", [judged.charged_twice for judged in clients]),
    ]
    waits = [milliseconds(judged.waited_ms.p99) for judged in clients]
    return [
        *([what, *(f"{count:,}" for count in counts)] for what, counts in rows),
        ["p99 of answers, server down", *waits],
    ]


def ledger_rows(report: Report) -> list[tuple[str, str, str]]:
    """Return the rows of the ledger: what is counted, of payments, and of orders."""
    rows = (
        ("asked for", report.asked, report.orders_asked),
        ("charged by the server; handled", report.charged, report.orders_handled),
        ("parked, at least once", report.parked, report.orders_parked),
        ("replayed", report.replayed, report.orders_replayed),
        ("lost", report.lost, report.orders_lost),
        ("charged twice", report.charged_twice, report.orders_charged_twice),
        ("failed: got an error", report.failed, None),
        ("asked again, and not charged again", report.repeated, None),
    )
    return [
        (what, f"{payments:,}", "-" if orders is None else f"{orders:,}")
        for what, payments, orders in rows
    ]


def verdict(report: Report) -> tuple[bool, str]:
    """Return whether all went well, and the verdict in words."""
    if report.faults:
        return False, f"FAILED: {'; '.join(report.faults)}"
    return True, (
        f"NOTHING LOST, NOTHING CHARGED TWICE: {report.charged:,} of {report.asked:,} payments and "
        f"{report.orders_handled:,} of {report.orders_asked:,} orders were made once. "
        f"{report.parked:,} payments and {report.orders_parked:,} orders waited, and all were made."
    )
