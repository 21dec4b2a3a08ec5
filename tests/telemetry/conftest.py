"""A registry of circuits, and one to scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.testing import FakeClock
from tests.support.scraped_outage import ScrapedOutage, scraped_outage

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@pytest.fixture(scope="session")
def outage() -> Iterator[ScrapedOutage]:
    """Provide what a Prometheus has seen of the demo's outage; for tests of `make prometheus`."""
    with scraped_outage() as found:
        yield found
