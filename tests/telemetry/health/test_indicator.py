"""The JSON: resilience4j's words and keys, and what Fusewire knows besides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitOpenError
from fusewire.parking import LaneStatus
from fusewire.parking._status import Depth
from fusewire.telemetry.health import Health
from fusewire.telemetry.health._indicator import indicate
from tests.support.circuits import half_open_circuit, open_circuit
from tests.support.consumer_status import NOW, FakeConsumer

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def shown(health: Health) -> Any:
    return json.loads(json.dumps(indicate(health.report(), details=True), allow_nan=False))


def test_a_circuit_has_the_details_of_resilience4j(clock: FakeClock) -> None:
    """Those of the article's payment-service, which set a rate and slow calls."""
    settings = BreakerSettings(
        failure_threshold=None,
        window_calls=20,
        minimum_calls=10,
        failure_rate_threshold=0.5,
        recovery_timeout=30,
        half_open_max_calls=5,
        slow_call_duration=5,
        slow_call_rate_threshold=0.8,
    )
    registry = BreakerRegistry(settings, clock=clock)
    breaker = registry.get("payment-service")
    for number in range(10):
        permit = breaker.acquire()
        clock.advance(6 if number == 0 else 0)
        if number % 2:
            permit.failure(error=ConnectionError("a text that is not shown"))
        else:
            permit.success()
    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    clock.advance(10)
    component = shown(Health(registry, clock=clock))["components"]["circuitBreakers"]
    assert component["status"] == "UP"
    assert component["details"]["payment-service"] == {
        "status": "CIRCUIT_OPEN",
        "details": {
            "failureRate": "50.0%",
            "failureRateThreshold": "50.0%",
            "slowCallRate": "10.0%",
            "slowCallRateThreshold": "80.0%",
            "bufferedCalls": 10,
            "slowCalls": 1,
            "failedCalls": 5,
            "notPermittedCalls": 1,
            "state": "OPEN",
            "consecutiveFailures": 0,
            "retryAfterSeconds": 20.0,
            "lastErrorType": "ConnectionError",
            "lastErrorStatus": None,
            "neededForReadiness": False,
        },
    }


def test_rates_that_are_not_known_are_null(registry: BreakerRegistry, clock: FakeClock) -> None:
    registry.get("stock")
    stock = shown(Health(registry, clock=clock))["components"]["circuitBreakers"]["details"]
    details = stock["stock"]["details"]
    assert details["failureRate"] is details["failureRateThreshold"] is None
    assert details["slowCallRate"] is details["slowCallRateThreshold"] is None


def test_each_state_has_springs_word(registry: BreakerRegistry, clock: FakeClock) -> None:
    registry.get("closed")
    half_open_circuit(registry.get("half open"), clock)
    open_circuit(registry.get("open"))
    for by_hand in ("force_open", "disable", "metrics_only"):
        getattr(registry.get(by_hand), by_hand)()
    component = shown(Health(registry, ready_needs=["new"], clock=clock))["components"]
    circuits = component["circuitBreakers"]["details"]
    assert {name: each["status"] for name, each in circuits.items()} == {
        "closed": "UP",
        "half open": "CIRCUIT_HALF_OPEN",
        "open": "CIRCUIT_OPEN",
        "force_open": "UNKNOWN",
        "disable": "UNKNOWN",
        "metrics_only": "UNKNOWN",
        "new": "UNKNOWN",  # nobody has called it yet
    }
    states = {name: each["details"]["state"] for name, each in circuits.items() if name != "new"}
    assert states["force_open"] == "FORCED_OPEN"
    assert states["half open"] == "HALF_OPEN"


def test_a_needed_circuit_puts_the_process_out_of_service(
    registry: BreakerRegistry, clock: FakeClock
) -> None:
    open_circuit(registry.get("payment-service"))
    found = shown(Health(registry, ready_needs=["payment-service"], clock=clock))
    assert found["status"] == "OUT_OF_SERVICE"
    assert found["details"] == {
        "readiness": ["circuit 'payment-service' is open for another 10.0 s"],
        "liveness": [],
    }
    component = found["components"]["circuitBreakers"]
    assert component["status"] == "OUT_OF_SERVICE"
    assert component["details"]["payment-service"]["status"] == "CIRCUIT_OPEN"
    assert component["details"]["payment-service"]["details"]["neededForReadiness"]
    assert found["components"]["consumers"] == {"status": "UP", "details": {}}


def test_a_consumer_says_how_it_stands(registry: BreakerRegistry) -> None:
    lane = LaneStatus(
        subscribed=False,
        in_flight=2,
        ready=Depth(7, NOW - 1),
        head_parked_at=None,
        empty_at=None,
        waits_for=("payment-service",),
        replays={},
    )
    consumer = FakeConsumer(
        subscribed=False, paused_by="payment-service", lanes={"payment-service": lane}
    )
    component = shown(Health(registry, consumers=[consumer]))["components"]["consumers"]
    assert component == {
        "status": "UP",
        "details": {
            "orders": {
                "status": "UP",
                "details": {
                    "running": True,
                    "connected": True,
                    "connectionChangedSecondsAgo": 1000.0,
                    "subscribed": False,
                    "lastDeliverySecondsAgo": 2.0,
                    "inFlight": 3,
                    "pausedBy": "payment-service",
                    "eventLoopTurnedSecondsAgo": 0.5,
                    "lanes": {
                        "payment-service": {
                            "subscribed": False,
                            "inFlight": 2,
                            "ready": 7,
                            "waitsFor": ["payment-service"],
                        }
                    },
                },
            }
        },
    }


def test_the_worst_consumer_says_how_all_are(registry: BreakerRegistry) -> None:
    well, stuck = FakeConsumer(), FakeConsumer(loop_turned_at=NOW - 60)
    not_yet = FakeConsumer(queue="refunds", loop_turned_at=None, last_delivery_at=None)
    found = shown(Health(registry, consumers=[well, not_yet]))
    assert found["status"] == found["components"]["consumers"]["status"] == "OUT_OF_SERVICE"
    found = shown(Health(registry, consumers=[well, stuck, not_yet]))
    assert found["status"] == found["components"]["consumers"]["status"] == "DOWN"
    consumers = found["components"]["consumers"]["details"]
    assert {name: each["status"] for name, each in consumers.items()} == {
        "orders": "UP",
        "orders (2)": "DOWN",
        "refunds": "OUT_OF_SERVICE",
    }
    assert consumers["refunds"]["details"]["lastDeliverySecondsAgo"] is None
