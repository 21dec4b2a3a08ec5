"""What a breaker tells its listeners, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusewire.breaker.states import CircuitState


class Cause(StrEnum):
    """Why a circuit changed its state."""

    CONSECUTIVE_FAILURES = "consecutive_failures"
    PROBE_FAILED = "probe_failed"
    RECOVERY_TIME_OVER = "recovery_time_over"
    PROBES_SUCCEEDED = "probes_succeeded"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a circuit changed its state, with the figures that decided it.

    ``str(reason)`` says it in words.

    Attributes:
        cause: the rule that applied.
        value: the figure that was reached; its unit follows from the cause.
        threshold: the setting that the figure was compared with.
    """

    cause: Cause
    value: float = 0.0
    threshold: float = 0.0

    def __str__(self) -> str:
        return _WORDS[self.cause].format(self)


_WORDS = {
    Cause.CONSECUTIVE_FAILURES: "{0.value:g} failures in a row, threshold {0.threshold:g}",
    Cause.PROBE_FAILED: "a probe failed",
    Cause.RECOVERY_TIME_OVER: "{0.threshold:g} s of recovery time are over",
    Cause.PROBES_SUCCEEDED: "{0.value:g} probes succeeded",
}


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events. `name` is the breaker's."""

    name: str


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """The circuit went from `old` to `new`, and `reason` says why."""

    old: CircuitState
    new: CircuitState
    reason: Reason
