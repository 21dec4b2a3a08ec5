"""What metrics cost: collecting many circuits, and calls while they are scraped.

``python -m benchmarks.telemetry``. It prints the table of docs/prometheus.md. All figures are
ratios of times that are measured in turns in one run, the least of several rounds each.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitBreaker
from fusewire.telemetry.prometheus import export

if TYPE_CHECKING:
    from collections.abc import Callable

CIRCUITS = 1000
WINDOW = 1000
SERIES = 10  # of each circuit
ROUNDS = 15
CALLS = 100_000  # of a healthy circuit, in each round
FAILING = 60_000  # calls of a failing circuit, in each round
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
    mine, own = (min(each) for each in zip(*found, strict=True))
    print(f"collecting {1000 * mine:.0f} ms, prometheus_client's rendering {1000 * own:.0f} ms")
    return mine / own


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
        took = []
        for number in range(FAILING):
            permit = breaker.acquire()
            begin = time.perf_counter()
            if number % 10:
                permit.success()
            else:
                permit.failure()
            took.append(time.perf_counter() - begin)
        return statistics.quantiles(took[::10], n=1000)[-1]

    with export(circuits, to=to):
        thread = threading.Thread(target=scrape)
        thread.start()
        found = []
        for _ in range(ROUNDS):
            scraping.clear()
            without = p999()
            scraping.set()
            found.append((p999(), without))
        over.set()
        thread.join()
    scraped, without = (statistics.median(each) for each in zip(*found, strict=True))
    print(f"p99.9 of failing calls {1e6 * scraped:.1f} us scraped, {1e6 * without:.1f} us not")
    return scraped / without


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
    with_exporter, without = (min(each) for each in zip(*found, strict=True))
    print(f"a healthy call {1e9 * with_exporter:.0f} ns exported, {1e9 * without:.0f} ns not")
    return with_exporter / without


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
    with_durations, without, observed = (min(each) for each in zip(*found, strict=True))
    print(
        f"a call {1e9 * with_durations:.0f} ns measured, {1e9 * without:.0f} ns not; "
        f"an observe {1e9 * observed:.0f} ns"
    )
    return (with_durations - without) / observed


def main() -> None:
    circuits = full_registry()
    print(f"collecting: {collecting(circuits):.2f} (at most 0.5)")
    print(f"failing calls: {failing(circuits):.2f} (at most 1.1)")
    print(f"healthy calls: {healthy():.3f} (at most 1.02)")
    print(f"durations: {durations():.3f} (at most 0.2)")


if __name__ == "__main__":
    main()
