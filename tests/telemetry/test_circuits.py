"""Circuits are shown with the article's names, labels and values, and with more of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitBreaker, CircuitOpenError
from fusewire.telemetry.prometheus import export
from tests.support.scraping import scrape

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from fusewire.testing import FakeClock

STATE = "circuit_breaker_state"
CALLS = "circuit_breaker_calls_total"
TRANSITIONS = "circuit_breaker_state_transitions_total"


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.acquire().failure()


def reject(breaker: CircuitBreaker) -> None:
    with pytest.raises(CircuitOpenError):
        breaker.acquire()


def test_a_circuit_without_a_call_shows_all_its_series(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    circuits.get("payments")
    export(circuits, to=to)
    shown = scrape(to)
    assert shown(STATE, circuit_name="payments") == 0
    results = {("success",): 0, ("failure",): 0, ("rejected",): 0}
    assert shown.named(CALLS, "circuit_name") == results
    assert shown.named(TRANSITIONS, "circuit_name") == {
        ("closed", "open"): 0,
        ("open", "half_open"): 0,
        ("half_open", "closed"): 0,
        ("half_open", "open"): 0,
    }
    assert shown("circuit_breaker_mode", circuit_name="payments") == 0
    assert shown("circuit_breaker_open_seconds_total", circuit_name="payments") == 0
    assert len([name for name, labels, _ in shown if labels.get("circuit_name")]) == 10


def test_the_kinds_of_the_articles_metrics(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    circuits.get("payments")
    export(circuits, to=to)
    kinds = scrape(to).kinds
    assert kinds["circuit_breaker_state"] == "gauge"
    assert kinds["circuit_breaker_calls"] == "counter"
    assert kinds["circuit_breaker_state_transitions"] == "counter"


def test_a_circuit_that_is_made_after_the_export_is_shown(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    export(circuits, to=to)
    assert scrape(to)(STATE, circuit_name="payments") is None
    circuits.get("payments")
    circuits.add(CircuitBreaker("by-hand"))
    assert scrape(to)(STATE, circuit_name="payments") == 0
    assert scrape(to)(STATE, circuit_name="by-hand") == 0


def test_an_outage(circuits: BreakerRegistry, to: CollectorRegistry, clock: FakeClock) -> None:
    export(circuits, to=to)
    breaker = circuits.get("payments")
    breaker.acquire().success()
    fail(breaker, 2)
    reject(breaker)
    shown = scrape(to)
    assert shown(STATE, circuit_name="payments") == 1
    results = {("success",): 1, ("failure",): 2, ("rejected",): 1}
    assert shown.named(CALLS, "circuit_name") == results
    clock.advance(10)
    assert scrape(to)(STATE, circuit_name="payments") == 2  # half open by time, without a call
    breaker.acquire().success()
    shown = scrape(to)
    assert shown(STATE, circuit_name="payments") == 0
    assert shown.named(TRANSITIONS, "circuit_name") == {
        ("closed", "open"): 1,
        ("open", "half_open"): 1,
        ("half_open", "closed"): 1,
        ("half_open", "open"): 0,
    }
    assert shown("circuit_breaker_open_seconds_total", circuit_name="payments") == 10


@pytest.mark.parametrize(
    ("by_hand", "shows"),
    [
        ("force_open", (1, 1, "forced_open")),
        ("disable", (0, 2, "disabled")),
        ("metrics_only", (0, 3, "metrics_only")),
    ],
)
def test_what_is_set_by_hand(
    circuits: BreakerRegistry,
    to: CollectorRegistry,
    by_hand: str,
    shows: tuple[int, int, str],
) -> None:
    state, mode, name = shows
    export(circuits, to=to)
    breaker = circuits.get("payments")
    getattr(breaker, by_hand)()
    shown = scrape(to)
    assert shown(STATE, circuit_name="payments") == state
    assert shown("circuit_breaker_mode", circuit_name="payments") == mode
    assert shown(TRANSITIONS, circuit_name="payments", from_state="closed", to_state=name) == 1


def test_detail(to: CollectorRegistry, clock: FakeClock) -> None:
    settings = BreakerSettings(
        failure_threshold=3, slow_call_duration=1.0, recovery_timeout=10.0, half_open_max_calls=1
    )
    circuits = BreakerRegistry(settings, clock=clock)
    export(circuits, to=to, detail=True)
    breaker = circuits.get("payments")
    late = breaker.acquire()
    breaker.acquire().release()
    slow = breaker.acquire()
    clock.advance(2)
    slow.success()
    shown = scrape(to)
    assert shown("circuit_breaker_ignored_calls_total", circuit_name="payments") == 1
    assert shown("circuit_breaker_slow_calls_total", circuit_name="payments") == 1
    assert shown("circuit_breaker_expired_leases_total", circuit_name="payments") == 0
    assert shown("circuit_breaker_retry_after_seconds", circuit_name="payments") == 0
    assert shown("circuit_breaker_window_failure_ratio", circuit_name="payments") is None
    assert shown("circuit_breaker_window_slow_ratio", circuit_name="payments") is None
    fail(breaker, 3)
    late.success()
    clock.advance(4)
    shown = scrape(to)
    assert shown("circuit_breaker_retry_after_seconds", circuit_name="payments") == 6
    assert shown("circuit_breaker_late_results_total", circuit_name="payments") == 1
    clock.advance(6)
    probe = breaker.acquire()
    assert scrape(to)("circuit_breaker_probes_running", circuit_name="payments") == 1
    probe.success()


def test_the_windows_ratios_are_shown_once_there_are_calls_enough(
    to: CollectorRegistry, clock: FakeClock
) -> None:
    settings = BreakerSettings(
        failure_threshold=None,
        window_calls=10,
        minimum_calls=4,
        failure_rate_threshold=0.9,
        slow_call_duration=1.0,
        slow_call_rate_threshold=1.0,
    )
    circuits = BreakerRegistry(settings, clock=clock)
    export(circuits, to=to, detail=True)
    breaker = circuits.get("payments")
    for _ in range(3):
        breaker.acquire().success()
    assert scrape(to)("circuit_breaker_window_failure_ratio", circuit_name="payments") is None
    fail(breaker)
    shown = scrape(to)
    assert shown("circuit_breaker_window_failure_ratio", circuit_name="payments") == 0.25
    assert shown("circuit_breaker_window_slow_ratio", circuit_name="payments") == 0


def test_durations_are_shown_of_the_circuits_that_were_chosen(
    circuits: BreakerRegistry, to: CollectorRegistry, clock: FakeClock
) -> None:
    export(circuits, to=to, durations=["/payments.*"])
    for name in ("/payments.v1.Payments/Charge", "orders"):
        permit = circuits.get(name).acquire()
        clock.advance(0.5)
        permit.success()
    fail(circuits.get("/payments.v1.Payments/Charge"))
    shown = scrape(to)
    name = "circuit_breaker_call_duration_seconds"
    chosen = {"circuit_name": "/payments.v1.Payments/Charge", "result": "success"}
    assert shown(f"{name}_count", **chosen) == 1
    assert shown(f"{name}_sum", **chosen) == pytest.approx(0.5)
    assert shown(f"{name}_bucket", **chosen, le="+Inf") == 1
    assert shown(f"{name}_count", **{**chosen, "result": "failure"}) == 1
    buckets = [labels for found, labels, _ in shown if found == f"{name}_bucket"]
    assert len(buckets) == 2 * 14
    assert {labels["circuit_name"] for labels in buckets} == {"/payments.v1.Payments/Charge"}
