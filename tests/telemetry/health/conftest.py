"""A registry and its clock."""

from __future__ import annotations

import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def registry(clock: FakeClock) -> BreakerRegistry:
    return BreakerRegistry(
        BreakerSettings(failure_threshold=2, recovery_timeout=10, half_open_max_calls=1),
        clock=clock,
    )
