"""What readiness and liveness follow, and what they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.errors import SettingsError
from fusewire.parking import ParkingConsumer
from fusewire.telemetry.health import Health, Verdict
from tests.support.circuits import open_circuit
from tests.support.consumer_status import NOW, FakeConsumer

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


@pytest.fixture
def health(registry: BreakerRegistry, clock: FakeClock) -> Health:
    return Health(registry, ready_needs=["payment-service"], clock=clock)


def test_a_process_without_circuits_and_consumers_is_well(health: Health) -> None:
    report = health.report()
    assert report.startup == report.readiness == report.liveness == Verdict()
    assert report.startup.passes


def test_a_needed_circuit_fails_readiness_while_it_is_open_and_no_longer(
    health: Health, registry: BreakerRegistry, clock: FakeClock
) -> None:
    breaker = registry.get("payment-service")
    assert health.readiness().passes
    open_circuit(breaker)
    clock.advance(0.5)
    assert health.readiness().reasons == ("circuit 'payment-service' is open for another 9.5 s",)
    clock.advance(9.4)
    assert not health.readiness().passes
    clock.advance(0.1)
    assert health.readiness().passes


def test_without_traffic_after_an_outage_a_process_is_ready_again(
    health: Health, registry: BreakerRegistry, clock: FakeClock
) -> None:
    open_circuit(registry.get("payment-service"))
    assert not health.readiness().passes
    clock.advance(10)
    for _ in range(100):  # nobody calls, and so nothing changes but the time
        assert health.readiness().passes
        clock.advance(10)
    assert registry.get("payment-service").figures().counters.transitions[1].count == 0


def test_a_circuit_that_probes_is_ready_and_one_that_opens_again_is_not(
    health: Health, registry: BreakerRegistry, clock: FakeClock
) -> None:
    breaker = registry.get("payment-service")
    open_circuit(breaker)
    clock.advance(10)
    probe = breaker.acquire()
    assert health.readiness().passes
    probe.failure()
    assert not health.readiness().passes


def test_a_needed_circuit_that_was_forced_open_fails_readiness_until_it_is_released(
    health: Health, registry: BreakerRegistry, clock: FakeClock
) -> None:
    breaker = registry.get("payment-service")
    breaker.force_open()
    assert health.readiness().reasons == ("circuit 'payment-service' is forced open",)
    clock.advance(1000)
    assert not health.readiness().passes
    breaker.automatic()
    assert health.readiness().passes


@pytest.mark.parametrize("by_hand", ["disable", "metrics_only"])
def test_a_circuit_that_admits_calls_is_ready_whoever_set_it(
    health: Health, registry: BreakerRegistry, by_hand: str
) -> None:
    breaker = registry.get("payment-service")
    open_circuit(breaker)
    getattr(breaker, by_hand)()
    assert health.readiness().passes


def test_a_circuit_that_is_not_needed_fails_nothing(
    health: Health, registry: BreakerRegistry
) -> None:
    for name in ("stock", "payment-service-2", "payment"):
        open_circuit(registry.get(name))
    registry.get("users").force_open()
    assert health.report().readiness.passes


def test_no_circuit_fails_liveness_or_startup(registry: BreakerRegistry, clock: FakeClock) -> None:
    health = Health(registry, ready_needs=["*"], clock=clock)
    for name in ("stock", "payment-service"):
        open_circuit(registry.get(name))
    registry.get("users").force_open()
    report = health.report()
    assert (report.startup, report.liveness) == (Verdict(), Verdict())
    assert len(report.readiness.reasons) == 3
    assert health.startup().passes
    assert health.liveness().passes


def test_needed_circuits_may_be_named_by_a_pattern(
    registry: BreakerRegistry, clock: FakeClock
) -> None:
    health = Health(registry, ready_needs=["/payments.v1.*", "a[b]"], clock=clock)
    for name in ("/payments.v1.Payments/Charge", "/payments.v2.Payments/Charge", "a[b]", "ab"):
        registry.get(name).force_open()
    assert health.readiness().reasons == (
        "circuit '/payments.v1.Payments/Charge' is forced open",
        "circuit 'a[b]' is forced open",
        "circuit 'ab' is forced open",
    )


def test_a_needed_circuit_that_nobody_has_called_is_not_made(
    registry: BreakerRegistry, clock: FakeClock
) -> None:
    health = Health(registry, ready_needs=["payment-service", "/payments.*"], clock=clock)
    assert health.readiness().passes
    assert health.report().unknown == ("payment-service",)
    assert len(registry) == 0
    registry.get("payment-service")
    clock.advance(1)
    assert health.report().unknown == ()


def test_the_circuits_are_those_of_the_default_registry_unless_others_are_given() -> None:
    default_registry().get("seen by health")
    try:
        assert "seen by health" in Health().report().circuits
        assert Health(BreakerRegistry()).report().circuits == {}
    finally:
        default_registry().remove("seen by health")


@pytest.mark.parametrize(
    ("changes", "not_ready", "stuck"),
    [
        ({}, None, None),
        ({"subscribed": False, "paused_by": "payment-service", "running": False}, None, None),
        ({"connected": False, "connection_changed_at": NOW - 59.9}, None, None),
        (
            {"connected": False, "connection_changed_at": NOW - 60},
            "the consumer of 'orders' has not been connected for 60 s",
            None,
        ),
        ({"loop_turned_at": NOW - 59.9}, None, None),
        (
            {"loop_turned_at": NOW - 60},
            None,
            "the event loop of the consumer of 'orders' has not turned for 60 s",
        ),
        ({"loop_turned_at": None}, "the consumer of 'orders' does not run", None),
        (
            {"loop_turned_at": None, "connected": False, "connection_changed_at": NOW},
            "the consumer of 'orders' does not run",
            None,
        ),
    ],
)
def test_a_consumer(
    registry: BreakerRegistry, changes: dict[str, Any], not_ready: str | None, stuck: str | None
) -> None:
    report = Health(registry, consumers=[FakeConsumer(), FakeConsumer(**changes)]).report()
    assert (report.consumers[1].not_ready, report.consumers[1].stuck) == (not_ready, stuck)
    assert report.readiness.reasons == ((not_ready,) if not_ready else ())
    assert report.liveness.reasons == ((stuck,) if stuck else ())
    assert report.startup.passes


def test_the_times_of_consumers_are_the_users(registry: BreakerRegistry) -> None:
    away = FakeConsumer(connected=False, connection_changed_at=NOW - 5)
    stuck = FakeConsumer(loop_turned_at=NOW - 7)
    consumers = [away, stuck]
    patient = Health(registry, consumers=consumers, disconnected_after=6, stuck_after=8).report()
    assert (patient.readiness, patient.liveness) == (Verdict(), Verdict())
    strict = Health(registry, consumers=consumers, disconnected_after=5, stuck_after=7).report()
    assert not strict.readiness.passes
    assert not strict.liveness.passes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"ready_needs": "payment-service"},
            (
                "ready_needs must be a list of names, got 'payment-service'; "
                "write ready_needs=['payment-service']"
            ),
        ),
        ({"ready_needs": [""]}, "a name of ready_needs must be a non-empty string, got ''"),
        ({"ready_needs": [3]}, "a name of ready_needs must be a non-empty string, got 3"),
        ({"consumers": [print]}, "consumers must be objects with a status(), got <built-in"),
        ({"disconnected_after": 0}, "disconnected_after must be a finite number of seconds"),
        ({"stuck_after": -1}, "stuck_after must be a finite number of seconds above 0, got -1"),
        ({"registry": {}}, "registry must be a BreakerRegistry, or None, got {}"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Health(**arguments)
    assert str(caught.value).startswith(message)


def test_a_consumer_that_is_given_without_a_list_is_refused() -> None:
    consumer = ParkingConsumer("sqlite:///unused.db", queue="orders", handler=print)
    with pytest.raises(SettingsError, match=r"write consumers=\[consumer\]"):
        Health(consumers=consumer)  # type: ignore[arg-type] # on purpose
