"""Threads that call while others scrape: no counter falls, and all add up to what was called."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitOpenError
from fusewire.telemetry.prometheus import export
from tests.support.scraping import Scrape, scrape

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

THREADS = 16
CALLS = 400  # of each thread
NAMES = ("steady", "flapping")


def results(shown: Scrape) -> dict[tuple[str, ...], float]:
    return shown.named("circuit_breaker_calls_total")


def counters(shown: Scrape) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (name, frozenset(labels.items())): value
        for name, labels, value in shown
        if name.endswith("_total")
    }


def test_scraped_while_sixteen_threads_call(to: CollectorRegistry) -> None:
    circuits = BreakerRegistry()
    circuits.get("steady", BreakerSettings(failure_threshold=10**9))
    circuits.get("flapping", BreakerSettings(failure_threshold=3, recovery_timeout=0.001))
    export(circuits, to=to, detail=True, durations=["*"])
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(CALLS):
                for name in NAMES:
                    call(circuits, name, fails=chance.random() < 0.3)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    last: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    while any(thread.is_alive() for thread in threads):
        now = counters(scrape(to))
        assert not [series for series, value in last.items() if now[series] < value]
        last = now
    for thread in threads:
        thread.join()
    assert errors == []
    shown = scrape(to)
    for name in NAMES:
        called = sum(value for labels, value in results(shown).items() if labels[0] == name)
        late = shown("circuit_breaker_late_results_total", circuit_name=name)
        assert called + (late or 0) == THREADS * CALLS


def call(circuits: BreakerRegistry, name: str, *, fails: bool) -> None:
    try:
        permit = circuits.get(name).acquire()
    except CircuitOpenError:
        return
    if fails:
        permit.failure()
    else:
        permit.success()
