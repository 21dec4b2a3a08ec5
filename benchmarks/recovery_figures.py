"""The figures and curves of a recovery run, from what its processes wrote."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.recovery_run import ENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.recovery_record import Line
    from benchmarks.recovery_run import Recorded
    from benchmarks.recovery_stage import Load

ANSWERED = frozenset({"OK", "DEADLINE_EXCEEDED"})
"""Live calls whose duration counts: a refusal comes at once, and says nothing of the queue."""


@dataclass(frozen=True)
class Figures:
    """What one run came to; of the drain, unless it says otherwise.

    Attributes:
        drain: seconds, as a multiple of the ideal.
        drain_95: the same until 95 % of the messages were acknowledged.
        queued: the most calls queued, as a multiple of the limit.
        p50_before: median of the live calls before the outage, in seconds.
        p99_before: their 99th percentile.
        p50: median of the live calls during the drain.
        p99: their 99th percentile.
        live_failed: share of live calls that failed or were kept out by their own circuit.
        live_calls: how many there were.
        replays_refused: by the server.
        abandoned: calls that the server worked on after their callers had left.
        reopened: how often the circuit of a replica opened again, on average.
        reopened_most: the same, of the replica with most.
        dead: messages that were dead-lettered.
        unsettled: messages that were not settled when the run ended.
        cpu_server: share of a core that the server's process used, on average.
        cpu_live: the same for the live client.
        cpu_replica: the same for the replica that used most.
        late: seconds by which the server's event loop was late, 99th percentile.
        machine: busy share of all cores, whatever ran on the machine.
        load: the machine's load average of a minute, at the beginning and at the end.
    """

    drain: float
    drain_95: float
    queued: float
    p50_before: float
    p99_before: float
    p50: float
    p99: float
    live_failed: float
    live_calls: int
    replays_refused: int
    abandoned: int
    reopened: float
    reopened_most: int
    dead: int
    unsettled: int
    cpu_server: float
    cpu_live: float
    cpu_replica: float
    late: float
    machine: float
    load: tuple[float, float]


def figures(recorded: Recorded, load: Load) -> Figures:
    """Return what a run came to."""
    began, ended = recorded.began, recorded.ended
    samples = _of("sample", recorded.server, began, ended)
    live = _of("call", recorded.live_during, began, ended)
    before = _of("call", recorded.live_before, recorded.measured_from, recorded.killed)
    settled = sorted(
        (line["at"], line["outcome"])
        for lines in recorded.replicas.values()
        for line in _of("settled", lines, began, ended)
        if line["outcome"] in ENDS
    )
    reopened = [
        sum(line["state"] == "open" for line in _of("circuit", lines, began, ended))
        for lines in recorded.replicas.values()
    ]
    last = samples[-1]["calls"]
    after_95 = settled[min(len(settled), math.ceil(0.95 * load.messages)) - 1][0]
    durations, durations_before = _durations(live), _durations(before)
    return Figures(
        drain=(ended - began) / load.ideal,
        drain_95=(after_95 - began) / load.ideal,
        queued=max(line["queued"] for line in samples) / load.limit,
        p50_before=percentile(durations_before, 0.5),
        p99_before=percentile(durations_before, 0.99),
        p50=percentile(durations, 0.5),
        p99=percentile(durations, 0.99),
        live_failed=_failed(live),
        live_calls=len(live),
        replays_refused=last["refused"]["replay"],
        abandoned=sum(last["abandoned"].values()),
        reopened=statistics.mean(reopened),
        reopened_most=max(reopened),
        dead=sum(outcome == "dead" for _, outcome in settled),
        unsettled=recorded.unsettled,
        cpu_server=_cpu(recorded.server, began, ended),
        cpu_live=_cpu(recorded.live_during, began, ended),
        cpu_replica=max(_cpu(lines, began, ended) for lines in recorded.replicas.values()),
        late=percentile((line["late"] for line in samples), 0.99),
        machine=recorded.machine,
        load=recorded.load,
    )


@dataclass(frozen=True)
class Curves:
    """What happened over time: pairs of seconds since the first probe and a value.

    Attributes:
        queued: the most calls queued.
        replayed: replays that the server made, per second.
        p50: median of the live calls that began then, in seconds.
        p99: their 99th percentile.
        failed: share of the live calls that began then and failed, or were kept out.
    """

    queued: list[tuple[float, float]]
    replayed: list[tuple[float, float]]
    p50: list[tuple[float, float]]
    p99: list[tuple[float, float]]
    failed: list[tuple[float, float]]


def curves(recorded: Recorded) -> Curves:
    """Return the curves of a run, from the server's return to the end."""
    since = max(recorded.back, recorded.began - 5)
    samples = _of("sample", recorded.server, since, recorded.ended)
    calls = _binned(_of("call", recorded.live_during, since, recorded.ended), recorded.began, 2.0)
    per_second = _binned(samples, recorded.began, 1.0)
    done = {at: lines[-1]["calls"]["done"]["replay"] for at, lines in per_second.items()}
    times = sorted(done)
    return Curves(
        queued=[
            (at, max(line["queued"] for line in lines))
            for at, lines in _binned(samples, recorded.began, 0.25).items()
        ],
        replayed=[
            (now, (done[now] - done[earlier]) / (now - earlier)) for earlier, now in pairwise(times)
        ],
        p50=_over_time(calls, lambda found: percentile(found, 0.5)),
        p99=_over_time(calls, lambda found: percentile(found, 0.99)),
        failed=[(at, _failed(lines)) for at, lines in calls.items()],
    )


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which a share of the values lies; NaN if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else math.nan


def _of(what: str, lines: list[Line], since: float, until: float) -> list[Line]:
    return [line for line in lines if line["what"] == what and since <= line["at"] <= until]


def _durations(calls: Iterable[Line]) -> list[float]:
    return [line["took"] for line in calls if line["code"] in ANSWERED]


def _failed(calls: list[Line]) -> float:
    return len([line for line in calls if line["code"] != "OK"]) / max(1, len(calls))


def _cpu(lines: list[Line], since: float, until: float) -> float:
    shares = [line["cpu"] for line in _of("usage", lines, since, until)]
    return statistics.mean(shares) if shares else 0.0


def _binned(lines: list[Line], zero: float, width: float) -> dict[float, list[Line]]:
    """Sort lines by their time into bins; each is named by the seconds of its middle."""
    bins: defaultdict[float, list[Line]] = defaultdict(list)
    for line in lines:
        bins[(math.floor((line["at"] - zero) / width) + 0.5) * width].append(line)
    return dict(sorted(bins.items()))


def _over_time(
    bins: dict[float, list[Line]], value: Callable[[list[float]], float]
) -> list[tuple[float, float]]:
    found = ((at, value(_durations(lines))) for at, lines in bins.items())
    return [(at, one) for at, one in found if not math.isnan(one)]
