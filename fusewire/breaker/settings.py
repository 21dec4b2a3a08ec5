"""When a circuit opens, for how long, and how it closes again: validated when made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fusewire.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """How a circuit breaker behaves. The same words are used in code, files and the registry.

    Attributes:
        failure_threshold: failures in a row that open the circuit; ``None`` switches this off.
        recovery_timeout: seconds that the circuit stays open before it lets probes through.
        half_open_max_calls: probes in flight at most, and successful ones needed to close it.
        expected_exceptions: exceptions that count as failures. Others say nothing about the
            dependency. Cancellation never counts, whatever is named here.
        probe_lease: seconds after which the place of a probe that was never settled is taken back.

    Raises:
        SettingsError: a value cannot be right; the message names it and what would be accepted.
    """

    failure_threshold: int | None = 5
    recovery_timeout: float = 30.0
    half_open_max_calls: int = 3
    expected_exceptions: tuple[type[BaseException], ...] = (Exception,)
    probe_lease: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what cannot be right."""
        if self.failure_threshold is not None:
            _check_count("failure_threshold", self.failure_threshold, or_none=True)
        _check_seconds("recovery_timeout", self.recovery_timeout)
        _check_count("half_open_max_calls", self.half_open_max_calls)
        _check_exceptions("expected_exceptions", self.expected_exceptions)
        _check_seconds("probe_lease", self.probe_lease)


def _refuse(setting: str, value: object, accepted: str) -> SettingsError:
    return SettingsError(f"{setting} must be {accepted}, got {value!r}")


def _check_count(setting: str, value: object, *, or_none: bool = False) -> None:
    # bool is an int, and True as a threshold is a slip of the pen.
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        accepted = "a whole number of at least 1" + (", or None" if or_none else "")
        raise _refuse(setting, value, accepted)


def _check_seconds(setting: str, value: object) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise _refuse(setting, value, "a finite number of seconds above 0")


def _check_exceptions(setting: str, value: object) -> None:
    if not isinstance(value, tuple) or not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in value
    ):
        raise _refuse(setting, value, "a tuple of exception classes")
