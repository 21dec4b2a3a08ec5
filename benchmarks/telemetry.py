"""What telemetry costs: collecting many circuits, calls while they are scraped, and nothing at all.

``python -m benchmarks.telemetry``, or ``--only consuming`` for one of the figures. It prints those
of docs/prometheus.md. Each is the median of the ratios of pairs that are measured in turns, so that
what disturbs the machine disturbs both. All but the waits of failing calls are of the time of this
process. It exits with 1 if a target is missed.

What is taken out to find what telemetry costs while it is off, ``telemetry_off.py`` says.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from benchmarks import telemetry_off
from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitBreaker
from fusewire.telemetry.prometheus import export

if TYPE_CHECKING:
    from collections.abc import Callable

CIRCUITS = 1000
WINDOW = 1000
SERIES = 10  # of each circuit
ROUNDS = 40
CALLS = 20_000  # of a healthy circuit, in each round
FAILING_ROUNDS = 7
FAILING = 3.0  # seconds of calls, of which a tenth fails, in each round
CONSUMING_ROUNDS = 60
MESSAGES = 3000  # consumed in each round
SCRAPES = 1.0  # seconds between them, fifteen times as often as usual

SETTINGS = BreakerSettings(
    failure_threshold=None,
    failure_rate_threshold=1.0,
    window_calls=WINDOW,
    minimum_calls=WINDOW,
)


def fill(breaker: CircuitBreaker, calls: int) -> None:
    """Make calls, of which a tenth fails."""
    for number in range(calls):
        permit = breaker.acquire()
        if number % 10:
            permit.success()
        else:
            permit.failure()


def full_registry() -> BreakerRegistry:
    circuits = BreakerRegistry(SETTINGS)
    for number in range(CIRCUITS):
        fill(circuits.get(f"/shop.Service{number}/Method"), WINDOW)
    return circuits


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of this process that `work` takes, whatever others do meanwhile."""
    gc.collect()
    begin = time.process_time()
    work()
    return time.process_time() - begin


def collecting(circuits: BreakerRegistry) -> float:
    """Return our collecting as a share of prometheus_client's rendering of as many series."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    prometheus_client.disable_created_metrics()
    counters = [
        Counter(f"circuit_breaker_calls_{number}", "Calls", ["circuit_name"], registry=theirs)
        for number in range(SERIES - 2)
    ]
    gauges = [
        Gauge(f"circuit_breaker_state_{number}", "State", ["circuit_name"], registry=theirs)
        for number in range(2)
    ]
    for circuit in circuits:
        for metric in (*counters, *gauges):
            metric.labels(circuit.name).inc()
    with export(circuits, to=ours):
        found = [
            (seconds(lambda: list(ours.collect())), seconds(lambda: generate_latest(theirs)))
            for _ in range(ROUNDS)
        ]
    return ratio("collecting, prometheus_client's rendering", found)


def failing(circuits: BreakerRegistry) -> float:
    """Return p99.9 of calls that fail while all circuits are scraped, times that without."""
    to = CollectorRegistry()
    breaker = circuits.get("/shop.Service0/Method")
    scraping, over = threading.Event(), threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPES):
            if scraping.is_set():
                generate_latest(to)

    def p999() -> float:
        took, clock = [], time.perf_counter
        end = clock() + FAILING
        while clock() < end:
            for _ in range(9):
                breaker.acquire().success()
            begin = clock()
            breaker.acquire().failure()
            took.append(clock() - begin)
        return statistics.quantiles(took, n=1000)[-1]

    with export(circuits, to=to):
        thread = threading.Thread(target=scrape)
        thread.start()
        found = []
        for _ in range(FAILING_ROUNDS):
            scraping.clear()
            without = p999()
            scraping.set()
            found.append((p999(), without))
        over.set()
        thread.join()
    return ratio("p99.9 of failing calls, scraped and not", found)


def call_times(breaker: CircuitBreaker) -> float:
    acquire = breaker.acquire

    def calls() -> None:
        for _ in range(CALLS):
            acquire().success()

    return seconds(calls) / CALLS


def healthy() -> float:
    """Return a healthy call with the exporter, times one without."""
    bare, exported = BreakerRegistry(SETTINGS), BreakerRegistry(SETTINGS)
    with export(exported, to=CollectorRegistry()):
        found = [
            (call_times(exported.get("payments")), call_times(bare.get("payments")))
            for _ in range(ROUNDS)
        ]
    return ratio("a healthy call, exported and not", found)


def durations() -> float:
    """Return what durations add to a call, as a share of a bare labelled observe."""
    # Both are timed: their calls take the time anyhow.
    timed = BreakerSettings(failure_threshold=5, slow_call_duration=60.0)
    bare, measured = BreakerRegistry(timed), BreakerRegistry(timed)
    histogram = Histogram(
        "call_duration_seconds", "Durations", ["circuit_name", "result"], registry=None
    )

    def observe() -> None:
        for _ in range(CALLS):
            histogram.labels("payments", "success").observe(0.01)

    to = CollectorRegistry()
    with export(measured, to=to, durations=["*"]):
        found = [
            (
                call_times(measured.get("payments")),
                call_times(bare.get("payments")),
                seconds(observe) / CALLS,
            )
            for _ in range(ROUNDS)
        ]
    added = [(measured - bare, observed) for measured, bare, observed in found]
    return ratio("durations, an observe", added)


def consuming() -> float:
    """Return a message that is consumed with telemetry off, times one without its hooks."""
    found = telemetry_off.consuming(CONSUMING_ROUNDS, MESSAGES)
    low, _, high = statistics.quantiles((off / bare for off, bare in found), n=4)
    figure = ratio("a message, telemetry off and without its hooks", found)
    print(f"the middle half of the ratios: {low:.3f} to {high:.3f}")
    return figure


def ratio(what: str, pairs: list[tuple[float, float]]) -> float:
    """Print the medians of pairs in microseconds, and return the median of their ratios."""
    one, other = (1e6 * statistics.median(each) for each in zip(*pairs, strict=True))
    print(f"{what}: {one:.2f} us, {other:.2f} us")
    return statistics.median(mine / theirs for mine, theirs in pairs)


FIGURES = {
    "collecting": (lambda: collecting(full_registry()), 0.5),
    "failing": (lambda: failing(full_registry()), 1.1),
    "healthy": (healthy, 1.02),
    "durations": (durations, 0.2),
    "consuming": (consuming, 1 / 0.98),  # 0.98 times the messages in the same time
}
"""What gives each figure, and the most that it may be."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=FIGURES, help="measure this figure only")
    only = parser.parse_args().only
    missed = False
    for name, (measure, most) in FIGURES.items():
        if only in (None, name):
            figure = measure()
            print(f"{name}: {figure:.3f} (at most {most:.3g})", flush=True)
            missed |= figure > most
    sys.exit(missed)


if __name__ == "__main__":
    main()
