"""Settings to begin with, for three kinds of dependency; what to write where settings are wrong."""

from __future__ import annotations

from collections.abc import Mapping

from fusewire._validation import invalid, nearest
from fusewire.breaker.settings import BreakerSettings
from fusewire.errors import SettingsError

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


def check_settings(value: object, name: str = "settings") -> BreakerSettings:
    """Return `value` if it is settings; `name` says where it was given.

    Raises:
        SettingsError: it is not.
    """
    if not isinstance(value, BreakerSettings):
        raise invalid(name, "BreakerSettings", value, settings_hint(value))
    return value


def settings_hint(value: object) -> str:
    """Return what to write instead of `value`, which is no settings; empty where nobody knows."""
    if isinstance(value, str):
        preset = nearest(value, PRESETS)
        return f"write fusewire.breaker.PRESETS[{preset!r}]" if preset else ""
    if not isinstance(value, Mapping):
        return ""
    try:
        BreakerSettings(**value)
    except (SettingsError, TypeError) as error:
        return f"write BreakerSettings(...), and mind: {error}"
    arguments = ", ".join(f"{name}={given!r}" for name, given in value.items())
    return f"write BreakerSettings({arguments})"
