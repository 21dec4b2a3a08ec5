"""The report as one page of HTML: self-contained, without scripts, and bounded in size."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from fusewire._validation import invalid
from fusewire.demo._charts import LEFT, RIGHT, WIDTH, Figure, Series
from fusewire.demo._config import CALL_TIMEOUT, RETRY_POLICY, SETTINGS, THINK_TIME, Client
from fusewire.demo._figures import in_words, milliseconds
from fusewire.demo._tally import SUBJECTS
from fusewire.demo._words import CLIENTS, comparison, ledger_rows, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fusewire.demo._config import Plan
    from fusewire.demo._course import Course
    from fusewire.demo._curves import Point
    from fusewire.demo._report import Report

_POINTS = 120  # of a curve
_ROWS = 40  # of the table that stands beside the curves
_EVENTS = 60  # of the timeline that are listed

_RESULTS = (("ok", "OK"), ("pending", "PENDING"), ("error", "errors"))


def check_target(path: Path) -> None:
    """Check, before a run, that its report can be written to a file.

    Raises:
        SettingsError: it cannot.
    """
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise invalid("report", "a file in a folder that exists and can be written to", str(path))


def write_page(path: Path, plan: Plan, report: Report, course: Course) -> None:
    """Write the report page to a file, which is replaced as a whole."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    made.write_text(render(plan, report, course), "utf-8")
    made.replace(path)


def render(plan: Plan, report: Report, course: Course) -> str:
    """Return the report page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fusewire.demo"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("report.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    well, words = verdict(report)
    events = course.timeline()
    return environment.get_template(
        "report.html.jinja"
    ).render(
        style=Markup(style),  # noqa: S704 - the package's own file, into which nothing is put
        style_digest=digest,
        plan=plan,
        report=report,
        well=well,
        verdict=words,
        cards=[(CLIENTS[client], judged) for client, judged in report.clients.items()],
        figures=_figures(course),
        rows=_rows(course),
        comparison=comparison(list(report.clients.values())),
        clients=[CLIENTS[client] for client in report.clients],
        ledger=ledger_rows(report),
        latencies=[
            (phase, milliseconds(took.p50), milliseconds(took.p99))
            for phase, took in report.latency_ms.items()
        ],
        p99=milliseconds(report.latency_ms["during"].p99),
        events=events[:_EVENTS],
        events_left_out=max(len(events) - _EVENTS, 0),
        facts=_facts(plan, report),
        frame={"width": WIDTH, "left": LEFT, "right": WIDTH - RIGHT},
    )


def _figures(course: Course) -> list[tuple[str, str, Figure]]:
    """Return the title of each figure, what it shows in words, and its shapes."""
    step, points = course.tally.curves.points(course.now, _POINTS)
    most = max((sum(point.waiting.values()) for point in points), default=0)
    server = course.server(course.now)
    with_fusewire = Figure(course.now, step, server)
    with_fusewire.add_strip("server", server)
    for process, subject in SUBJECTS.items():
        with_fusewire.add_strip(f"{subject}' circuit", course.circuit(process, course.now))
    with_fusewire.add_stack(
        "Payments asked for, per second, by answer", 130, _answers(points, step, Client.FUSEWIRE)
    )
    with_fusewire.add_stack(
        f"Waiting, at most {most:,}: payments, and orders above them",
        130,
        [
            Series(what, what, [float(point.waiting.get(what, 0)) for point in points])
            for what in SUBJECTS.values()
        ],
    )
    took = [point.took.get(Client.FUSEWIRE) for point in points]
    with_fusewire.add_log_lines(
        "Latency of payments",
        110,
        [
            Series(f"p{share}", f"p{share}", [times and times[index] * 1000 for times in took])
            for index, share in enumerate((50, 99))
        ],
    )
    compared = Figure(course.now, step, server)
    for client, name in CLIENTS.items():
        compared.add_stack(
            f"{name}: payments asked for, per second, by answer",
            90,
            _answers(points, step, client),
        )
    return [
        (
            "With Fusewire",
            (
                "While the server is down, payments are answered PENDING and wait: at most "
                f"{most:,}, with the orders. When it is back, what waits is made, and the backlog "
                "falls to zero. A circuit at ½ is half open: it lets a few calls through as probes."
            ),
            with_fusewire,
        ),
        (
            "The same load, with Fusewire and without",
            (
                "While the server is down, Fusewire answers PENDING and makes the payments later. "
                "The other two get errors."
            ),
            compared,
        ),
    ]


def _answers(points: Sequence[Point], step: float, client: Client) -> list[Series]:
    return [
        Series(result, name, [point.answers[client][result] / step for point in points])
        for result, name in _RESULTS
    ]


def _rows(course: Course) -> list[list[str]]:
    """Return the figures of the curves, for the table that stands beside them."""
    step, points = course.tally.curves.points(course.now, _ROWS)
    rows = []
    for point in points:
        took = point.took.get(Client.FUSEWIRE, (None, None))
        rows.append(
            [
                f"{point.at:.1f} to {min(point.at + step, course.now):.1f}",
                *(f"{point.answers[Client.FUSEWIRE][result]:,}" for result, _ in _RESULTS),
                *(f"{point.waiting.get(what, 0):,}" for what in SUBJECTS.values()),
                *(in_words(seconds) for seconds in took),
                *(
                    f"{point.answers[client]['error']:,}"
                    for client in CLIENTS
                    if client is not Client.FUSEWIRE
                ),
            ]
        )
    return rows


def _facts(plan: Plan, report: Report) -> dict[str, Any]:
    """Return the settings of the run, for the words that describe it."""
    return {
        "broker": "RabbitMQ" if report.broker == "rabbitmq" else "the embedded broker (SQLite)",
        "command": f"fusewire demo --rate {plan.rate:g} --healthy {plan.healthy:g} "
        f"--outage {plan.outage:g} --report outage.html",
        "timeout": f"{CALL_TIMEOUT:g} s",
        "think_time": f"{THINK_TIME * 1000:.0f} ms",
        "threshold": SETTINGS.failure_threshold,
        "recovery_timeout": f"{SETTINGS.recovery_timeout:g} s",
        "retry_policy": ", ".join(
            f"{name} {', '.join(value) if isinstance(value, list) else value}"
            for name, value in RETRY_POLICY.items()
        ),
        "versions": f"Fusewire {version('fusewire')}, grpcio {version('grpcio')}, "
        f"Python {platform.python_version()}",
    }
