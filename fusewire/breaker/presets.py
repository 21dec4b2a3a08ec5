"""Settings to begin with, for three kinds of dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker.settings import BreakerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

CRITICAL = BreakerSettings(failure_threshold=3, recovery_timeout=120.0, half_open_max_calls=5)
"""A dependency that must not be harmed, such as payments: opens early, closes with care."""

LENIENT = BreakerSettings(failure_threshold=10, recovery_timeout=30.0, half_open_max_calls=2)
"""A dependency that one can do without, such as recommendations: opens late, closes soon."""

HIGH_TRAFFIC = BreakerSettings(failure_threshold=5, recovery_timeout=45.0, half_open_max_calls=3)
"""A dependency under much load, such as search: in between."""

PRESETS: Mapping[str, BreakerSettings] = {
    "critical": CRITICAL,
    "lenient": LENIENT,
    "high-traffic": HIGH_TRAFFIC,
}
"""The presets by the names that files use."""
