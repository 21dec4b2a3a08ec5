"""The recovery runs as a table, and what they miss of what is asked of them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.recovery_figures import Curves, Figures
    from benchmarks.recovery_stage import Case

MOST_DRAIN = 1.3  # times the ideal
MOST_P99 = 1.15  # times that with scope "cluster"
MOST_CPU = 0.5  # of a core, of the server's process and the live client's

HEAD = (
    "server beyond its limit",
    "replicas",
    "code",
    "runs",
    "drain ÷ ideal",
    "95 % ÷ ideal",
    "most queued ÷ limit",
    "live p50, ms",
    "live p99, ms",
    "live failed",
    "replays refused",
    "reopened",
    "CPU: server, live, replica",
    "event loop late, ms",
    "machine busy, load",
)
BEYOND = {"refuses": "refuses", "slows": "slows down"}


@dataclass(frozen=True)
class Result:
    """One run: what was run, what it came to, and its curves."""

    case: Case
    figures: Figures
    curves: Curves


def by_case(results: list[Result]) -> dict[Case, list[Result]]:
    """Return the runs of each cell."""
    found: defaultdict[Case, list[Result]] = defaultdict(list)
    for one in results:
        found[one.case].append(one)
    return dict(found)


def table(results: list[Result]) -> str:
    """Return the medians of the runs as a Markdown table."""
    cells = by_case(results)
    rows = [
        _row(case, [one.figures for one in cells[case]])
        for case in sorted(cells, key=lambda case: (case.beyond, case.replicas))
    ]
    lines = ["| " + " | ".join(row) + " |" for row in (HEAD, *rows)]
    return "\n".join([lines[0], "|---" * len(HEAD) + "|", *lines[1:]])


def misses(results: list[Result], code: str) -> list[str]:
    """Return in which cells `code` misses what is asked of it, in medians."""
    found = []
    cells = {case: [one.figures for one in runs] for case, runs in by_case(results).items()}
    single = {
        (case.beyond, case.replicas): median(runs, "p99")
        for case, runs in cells.items()
        if case.code.name == "cluster"
    }
    for case, runs in cells.items():
        where = f"{case.code.name}, {case.replicas} replicas, server {case.beyond}"
        if case.code.name == code:
            p99 = single.get((case.beyond, case.replicas))
            found += [f"{where}: {what}" for what in _missed(runs, p99)]
        for what in ("cpu_server", "cpu_live"):
            if (share := median(runs, what)) > MOST_CPU:
                found.append(
                    f"{where}: {what} is {share:.2f}, so the run measures its own event loops"
                )
    return found


def median(runs: list[Figures], what: str) -> float:
    """Return the median of a figure."""
    values: list[float] = [getattr(one, what) for one in runs]
    return statistics.median(values)


def _missed(runs: list[Figures], p99_single: float | None) -> Iterator[str]:
    if (drain := median(runs, "drain")) > MOST_DRAIN or median(runs, "unsettled"):
        yield f"drain {drain:.2f} x ideal, at most {MOST_DRAIN}"
    if (queued := median(runs, "queued")) > 1:
        yield f"most queued {queued:.2f} x the limit, at most 1"
    if failed := median(runs, "live_failed"):
        yield f"{failed:.2%} of the live calls failed, none may"
    if refused := median(runs, "replays_refused"):
        yield f"{refused:g} replays refused, none may be"
    if reopened := median(runs, "reopened"):
        yield f"circuits opened again {reopened:.2f} times, none may"
    if p99_single is not None and (p99 := median(runs, "p99")) > MOST_P99 * p99_single:
        yield f"live p99 is {p99 / p99_single:.2f} x that of 'cluster', at most {MOST_P99}"


def _row(case: Case, runs: list[Figures]) -> Iterator[str]:
    unsettled = sum(one.unsettled for one in runs)
    yield BEYOND[case.beyond]
    yield str(case.replicas)
    yield case.code.name
    yield str(len(runs))
    yield f"{median(runs, 'drain'):.2f}" + (f", {unsettled} left" if unsettled else "")
    yield f"{median(runs, 'drain_95'):.2f}"
    yield f"{median(runs, 'queued'):.2f}"
    yield _latency(runs, "p50")
    yield _latency(runs, "p99")
    yield f"{median(runs, 'live_failed'):.1%}"
    yield f"{median(runs, 'replays_refused'):g}"
    most = max(one.reopened_most for one in runs)
    yield f"{median(runs, 'reopened'):.1f}, at most {most}"
    shares = ("cpu_server", "cpu_live", "cpu_replica")
    yield ", ".join(f"{median(runs, share):.0%}" for share in shares)
    loads = [load for one in runs for load in one.load]
    yield f"{median(runs, 'late') * 1000:.1f}"
    yield f"{median(runs, 'machine'):.0%}, {min(loads):.1f} to {max(loads):.1f}"


def _latency(runs: list[Figures], what: str) -> str:
    before, during = median(runs, f"{what}_before"), median(runs, what)
    ratio = statistics.median(getattr(one, what) / getattr(one, f"{what}_before") for one in runs)
    return f"{before * 1000:.0f} → {during * 1000:.0f} (x {ratio:.2f})"
