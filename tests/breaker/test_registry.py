"""One breaker per name."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitState, default_registry

if TYPE_CHECKING:
    import pytest

    from fusewire.testing import FakeClock


def test_a_name_stands_for_one_breaker() -> None:
    registry = BreakerRegistry()
    assert "payments" not in registry
    breaker = registry.get("payments")
    assert registry.get("payments") is breaker
    assert registry.get("search") is not breaker
    assert "payments" in registry
    assert [each.name for each in registry] == ["payments", "search"]
    assert len(registry) == 2


def test_breakers_get_the_registrys_settings_and_clock_unless_told_otherwise(
    clock: FakeClock,
) -> None:
    common = BreakerSettings(failure_threshold=1, recovery_timeout=7)
    own = BreakerSettings(failure_threshold=9)
    registry = BreakerRegistry(common, clock=clock)
    breaker = registry.get("payments")
    assert breaker.settings is common
    assert registry.get("search", own).settings is own
    breaker.acquire().failure()
    clock.advance(7)
    assert breaker.state is CircuitState.HALF_OPEN


def test_the_first_settings_win_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = BreakerRegistry()
    first = BreakerSettings(failure_threshold=1)
    with caplog.at_level(logging.WARNING):
        registry.get("payments", first)
        registry.get("payments", BreakerSettings(failure_threshold=1))
        registry.get("payments")
        assert caplog.records == []
        for threshold in (2, 3):
            other = BreakerSettings(failure_threshold=threshold)
            assert registry.get("payments", other).settings is first
    assert len(caplog.records) == 1


def test_the_process_has_one_registry() -> None:
    assert default_registry() is default_registry()
