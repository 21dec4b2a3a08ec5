"""A registry of circuits, and one to scrape."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def circuits(clock: FakeClock) -> BreakerRegistry:
    settings = BreakerSettings(failure_threshold=2, recovery_timeout=10.0, half_open_max_calls=1)
    return BreakerRegistry(settings, clock=clock)


@pytest.fixture
def to() -> CollectorRegistry:
    return CollectorRegistry()
