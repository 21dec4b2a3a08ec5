"""How values are shown to people: as files write them, and never a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.config._exceptions import name_of_exception
from fusewire.config._problems import without_passwords

if TYPE_CHECKING:
    from fusewire.config._checking import Origin


_DURATIONS = (
    "recovery_timeout",
    "recovery_timeout_max",
    "window_seconds",
    "slow_call_duration",
    "max_wait",
    "probe_lease",
    "ramp_duration",
    "max_age",
)


def show_field(name: str, value: object) -> str:
    """Return the value of a setting as a file writes it, with a unit if it is a duration."""
    text = show_setting(value)
    return f"{text}s" if name in _DURATIONS and value is not None and "e" not in text else text


def show_origin(origin: Origin) -> str:
    """Return how people see a value, which is not shown if it came from a variable."""
    if origin.place is not None and origin.place.placeholder:
        return f"the value of {origin.place.placeholder}, which is not shown"
    return show_setting(origin.value)


def show_setting(value: object) -> str:
    """Return a setting's value as a file writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        shown = (
            name_of_exception(one) if isinstance(one, type) else show_setting(one) for one in value
        )
        return f"[{', '.join(shown)}]"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return without_passwords(str(value))
