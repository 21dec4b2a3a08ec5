"""Reading is shared by all who ask, waits for nothing, and says in the log what has changed."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from fusewire.breaker import CircuitBreaker
from fusewire.telemetry.health import Health
from tests.support.circuits import open_circuit
from tests.support.consumer_status import NOW, FakeConsumer
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    import pytest

    from fusewire.breaker import BreakerRegistry, Figures
    from fusewire.testing import FakeClock


def test_a_report_is_kept_for_a_second(registry: BreakerRegistry, clock: FakeClock) -> None:
    consumer = FakeConsumer()
    health = Health(registry, consumers=[consumer], clock=clock)
    first = health.report()
    clock.advance(0.99)
    assert health.report() is first
    assert consumer.read == 1
    clock.advance(0.01)
    assert health.report() is not first
    assert consumer.read == 2


def test_a_verdict_reads_the_needed_circuits_alone_and_each_time(
    registry: BreakerRegistry, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    figures = CircuitBreaker.figures

    def counting(breaker: CircuitBreaker, **options: bool) -> Figures:
        read.append(breaker.name)
        return figures(breaker, **options)

    monkeypatch.setattr("fusewire.breaker.CircuitBreaker.figures", counting)
    for name in ("stock", "payments", "users"):
        registry.get(name)
    health = Health(registry, ready_needs=["payments"], clock=clock)
    health.report()
    assert sorted(read) == ["payments", "stock", "users"]
    read.clear()
    assert health.readiness().passes
    registry.get("payments").force_open()
    assert not health.readiness().passes
    assert read == ["payments", "payments"]
    assert health.liveness().passes
    assert health.startup().passes
    assert len(read) == 2
    assert health.report().readiness.passes  # as it was


def test_durations_are_not_read(registry: BreakerRegistry, clock: FakeClock) -> None:
    registry.measure_durations()
    breaker = registry.get("payment-service")
    breaker.acquire().success()
    figures = Health(registry, clock=clock).report().circuits["payment-service"].figures
    assert figures.durations is None
    assert figures.counters.succeeded == 1


def test_no_window_is_copied(
    registry: BreakerRegistry, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: CircuitBreaker) -> None:
        raise AssertionError("a snapshot was taken")

    registry.get("payment-service")
    monkeypatch.setattr("fusewire.breaker.CircuitBreaker.snapshot", refuse)
    assert Health(registry, clock=clock).report().circuits


def test_a_probe_that_changes_is_logged_once(
    registry: BreakerRegistry, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fusewire.telemetry")
    consumer = FakeConsumer()
    health = Health(registry, consumers=[consumer], ready_needs=["payments"], clock=clock)

    def read_often() -> None:
        for _ in range(3):
            health.report()
            health.readiness()
            health.liveness()
            clock.advance(1)

    read_often()
    open_circuit(registry.get("payments"))
    read_often()
    consumer.becomes(loop_turned_at=NOW - 61)
    read_often()
    clock.advance(10)
    consumer.becomes(loop_turned_at=NOW)
    read_often()
    told = [each for each in caplog.records if each.name == "fusewire.telemetry"]
    assert [(each.levelname, each.message) for each in told] == [
        ("WARNING", "readiness fails: circuit 'payments' is open for another 10.0 s"),
        (
            "ERROR",
            "liveness fails: the event loop of the consumer of 'orders' has not turned for 61 s",
        ),
        ("INFO", "readiness passes now"),
        ("INFO", "liveness passes now"),
    ]


def test_a_process_that_is_not_ready_from_the_start_is_logged(
    registry: BreakerRegistry, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fusewire.telemetry")
    consumer = FakeConsumer(loop_turned_at=None)
    health = Health(registry, consumers=[consumer], clock=clock)
    health.readiness()
    health.readiness()
    consumer.becomes(loop_turned_at=NOW)
    health.readiness()
    told = [each for each in caplog.records if each.name == "fusewire.telemetry"]
    assert [(each.levelname, each.message) for each in told] == [
        ("INFO", "readiness does not pass yet: the consumer of 'orders' does not run"),
        ("INFO", "readiness passes now"),
    ]


def test_many_threads_may_ask(registry: BreakerRegistry) -> None:
    """And each gets a whole report, while circuits open, close, come and go."""
    health = Health(registry, ready_needs=["*"], clock=iter(range(10**9)).__next__)
    seen: list[bool] = []
    wrong: list[object] = []
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.is_set():
            report = health.report()
            states = {each.figures.state.value for each in report.circuits.values()}
            if report.readiness.passes is not (states <= {"closed"}):
                wrong.append(report)
            seen.append(report.readiness.passes)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(100):
            breaker = registry.get(f"circuit {number}")
            breaker.force_open()
            count = len(seen)
            until_sync(lambda count=count: len(seen) > count + 8)
            registry.remove(breaker.name)
            until_sync(lambda count=count: len(seen) > count + 16)
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    assert set(seen) == {True, False}
    assert wrong == []
