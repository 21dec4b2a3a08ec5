"""Circuits forced into a state by name, for the time of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CircuitOpenError,
    CircuitState,
    default_registry,
)
from fusewire.testing import Circuits

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

pytest_plugins = ["fusewire.testing.fixtures"]


def test_a_circuit_is_forced_open_and_put_back() -> None:
    registry = BreakerRegistry(BreakerSettings(failure_threshold=3))
    breaker = registry.get("payments")
    breaker.acquire().failure()
    before = breaker.snapshot()
    with Circuits(registry) as circuits:
        assert circuits.force_open("payments") is breaker
        with pytest.raises(CircuitOpenError):
            breaker.acquire()
        circuits.reset("payments")
        assert breaker.state is CircuitState.CLOSED
    after = breaker.snapshot()
    assert after.state is CircuitState.CLOSED
    assert after.consecutive_failures == 1
    assert after.counters == before.counters


def test_a_circuit_that_a_test_made_begins_again() -> None:
    registry = BreakerRegistry()
    with Circuits(registry) as circuits:
        breaker = circuits.disable("search")
        assert breaker.state is CircuitState.DISABLED
    assert registry.get("search") is breaker
    assert breaker.state is CircuitState.CLOSED


def test_a_circuit_that_a_test_made_and_removed_stays_away() -> None:
    registry = BreakerRegistry()
    with Circuits(registry) as circuits:
        circuits.force_open("search")
        registry.remove("search")
    assert len(registry) == 0


def test_a_circuit_that_was_forced_open_gets_the_settings_of_its_first_channel() -> None:
    registry = BreakerRegistry()
    settings = BreakerSettings(failure_threshold=3)
    with Circuits(registry) as circuits:
        circuits.force_open("search")
        assert registry.get("search", settings).settings is settings
        assert registry.get("search").state is CircuitState.FORCED_OPEN


def test_the_fixture_forces_circuits_of_the_process_open(circuits: Circuits) -> None:
    circuits.force_open("test-circuits")
    assert default_registry().get("test-circuits").state is CircuitState.FORCED_OPEN


def test_after_a_test_they_are_put_back() -> None:
    assert default_registry().get("test-circuits").state is CircuitState.CLOSED


def test_the_clock_is_a_fixture_too(fake_clock: FakeClock) -> None:
    before = fake_clock()
    fake_clock.advance(1)
    assert fake_clock() == before + 1
