"""Circuit breakers: pure state machines, free of I/O, for threads and asyncio alike."""

import warnings
from typing import TYPE_CHECKING

from fusewire._public import publish
from fusewire.breaker._breaker import CircuitBreaker
from fusewire.breaker._durations import Durations
from fusewire.breaker._events import (
    BreakerAdded,
    BreakerRemoved,
    CallEvent,
    CallEventsDropped,
    CallFailed,
    CallIgnored,
    CallLate,
    CallRejected,
    CallSlow,
    CallSucceeded,
    Cause,
    Event,
    LeaseExpired,
    Reason,
    SettingsChanged,
    StateChanged,
)
from fusewire.breaker._figures import CircuitMode, Figures
from fusewire.breaker._generations import Baseline
from fusewire.breaker._histogram import CallDurations, Histogram, MethodDurations
from fusewire.breaker._named_guards import circuit_breaker
from fusewire.breaker._permit import Permit
from fusewire.breaker._registry import BreakerRegistry, default_registry
from fusewire.breaker._settings import CRITICAL, HIGH_TRAFFIC, LENIENT, PRESETS, BreakerSettings
from fusewire.breaker._snapshot import Counters, Snapshot
from fusewire.breaker._states import Admission, CircuitState, Outcome
from fusewire.breaker._transitions import Transition
from fusewire.breaker._windows import Bucket
from fusewire.errors import (
    CallError,
    CircuitBreakerError,
    CircuitOpenError,
    FailedResultError,
)

__all__ = [
    "CRITICAL",
    "HIGH_TRAFFIC",
    "LENIENT",
    "PRESETS",
    "Admission",
    "Baseline",
    "BreakerAdded",
    "BreakerRegistry",
    "BreakerRemoved",
    "BreakerSettings",
    "Bucket",
    "CallDurations",
    "CallError",
    "CallEvent",
    "CallEventsDropped",
    "CallFailed",
    "CallIgnored",
    "CallLate",
    "CallRejected",
    "CallSlow",
    "CallSucceeded",
    "Cause",
    "CircuitBreaker",
    "CircuitBreakerError",
    "CircuitMode",
    "CircuitOpenError",
    "CircuitState",
    "Counters",
    "Durations",
    "Event",
    "FailedResultError",
    "Figures",
    "Histogram",
    "LeaseExpired",
    "MethodDurations",
    "Outcome",
    "Permit",
    "Reason",
    "SettingsChanged",
    "Snapshot",
    "StateChanged",
    "Transition",
    "circuit_breaker",
    "default_registry",
]

_FORMER_NAMES = {"Look": Admission, "Slice": Bucket}


if not TYPE_CHECKING:  # or type checkers would take every name for one of this package

    def __getattr__(name: str) -> type:
        renamed = _FORMER_NAMES.get(name)
        if renamed is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warnings.warn(
            f"{__name__}.{name} is now {__name__}.{renamed.__name__}",
            DeprecationWarning,
            stacklevel=2,
        )
        return renamed


publish(__name__, __all__)
