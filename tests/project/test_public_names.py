"""The names that users may rely on, in one place: a change here is a change of the interface."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

PUBLIC = {
    "fusewire": [
        "BreakerRegistry",
        "BreakerSettings",
        "CircuitBreaker",
        "CircuitBreakerError",
        "CircuitOpenError",
        "CircuitState",
        "FusewireError",
        "ParkedCalls",
        "ParkingConsumer",
        "Receipt",
        "Reject",
        "Retry",
        "SettingsError",
        "aio_interceptors",
        "default_registry",
        "guard",
        "without_fallbacks",
    ],
    "fusewire.breaker": [
        "BreakerRegistry",
        "BreakerSettings",
        "CRITICAL",
        "CallEvent",
        "CallEventsDropped",
        "CallFailed",
        "CallIgnored",
        "CallLate",
        "CallRejected",
        "CallSlow",
        "CallSucceeded",
        "Cause",
        "CircuitBreaker",
        "CircuitBreakerError",
        "CircuitOpenError",
        "CircuitState",
        "Counters",
        "Event",
        "HIGH_TRAFFIC",
        "LENIENT",
        "LeaseExpired",
        "Look",
        "Outcome",
        "PRESETS",
        "Permit",
        "Reason",
        "SettingsChanged",
        "Slice",
        "Snapshot",
        "StateChanged",
        "default_registry",
    ],
    "fusewire.audit": [
        "Finding",
        "Permissions",
        "Policy",
        "Severity",
        "audit",
        "definitions",
        "permissions",
        "policies",
    ],
    "fusewire.brokers": [
        "Broker",
        "DELAY_TIERS",
        "Delivery",
        "HeaderValue",
        "Message",
        "OTHER_LANE",
        "RabbitMQBroker",
        "SQLiteBroker",
        "Subscription",
        "Topology",
        "open_broker",
    ],
    "fusewire.forwarding": [
        "OPERATION_ID_METADATA",
        "PARKED_METADATA",
        "ParkedCalls",
        "Receipt",
        "UnreadableCallError",
    ],
    "fusewire.interceptors": [
        "AioRejectedCall",
        "BreakerPer",
        "CallEnd",
        "CallFallback",
        "CallInfo",
        "Classification",
        "Classify",
        "ClassifyBySelector",
        "DEFAULT_OUTCOMES",
        "FALLBACK_METADATA",
        "Fallback",
        "FallbackDeclined",
        "HealthProbe",
        "RejectedCall",
        "SelectiveFallback",
        "SettingsBySelector",
        "Shape",
        "Streams",
        "StreamsBySelector",
        "aio_interceptors",
        "check_reply",
        "guard",
        "read_retry_after",
        "registries_of",
        "without_fallbacks",
    ],
    "fusewire.parking": [
        "HandlerNotRunError",
        "HandlerTimeoutError",
        "Happening",
        "MalformedMessageError",
        "MessageEvent",
        "MessageView",
        "ParkingConsumer",
        "RedeliveryWantedError",
        "Reject",
        "Retry",
    ],
    "fusewire.testing": [
        "Circuits",
        "FakeClock",
    ],
    "fusewire.testing.faults": [
        "Account",
        "Await",
        "Drop",
        "FaultProxy",
        "Journal",
        "LossLedger",
        "Place",
        "Side",
        "arm",
        "awaits_of",
        "count_queues",
        "die",
        "disarm",
        "find_awaits",
        "watch",
    ],
}


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_exports_these_names_and_no_others(package: str) -> None:
    assert sorted(import_module(package).__all__) == PUBLIC[package]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_exported_name_is_there_and_documented(package: str) -> None:
    module = import_module(package)
    assert module.__doc__
    for name in PUBLIC[package]:
        exported = getattr(module, name)
        if inspect.isclass(exported) or inspect.isroutine(exported):
            assert exported.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_can_be_imported_first(package: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {package}"], check=True, timeout=60
    )


def test_the_breaker_needs_neither_grpc_nor_a_broker_client() -> None:
    program = "import sys, fusewire.breaker; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert {"grpc", "aio_pika", "google.protobuf"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("name", ["Finding", "Severity"])
def test_a_name_that_has_moved_says_where_to(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"import fusewire\.audit\.{name}"):
        getattr(import_module("fusewire.brokers"), name)
