"""Circuit breakers: pure state machines, free of I/O, for threads and asyncio alike."""

from fusewire._public import publish
from fusewire.breaker.calls import CircuitBreaker
from fusewire.breaker.events import (
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
from fusewire.breaker.permit import Permit
from fusewire.breaker.presets import CRITICAL, HIGH_TRAFFIC, LENIENT, PRESETS
from fusewire.breaker.registry import BreakerRegistry, default_registry
from fusewire.breaker.settings import BreakerSettings
from fusewire.breaker.snapshot import Counters, Snapshot
from fusewire.breaker.states import CircuitState, Look, Outcome
from fusewire.breaker.windows import Slice
from fusewire.errors import CircuitBreakerError, CircuitOpenError

__all__ = [
    "CRITICAL",
    "HIGH_TRAFFIC",
    "LENIENT",
    "PRESETS",
    "BreakerRegistry",
    "BreakerSettings",
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
    "CircuitOpenError",
    "CircuitState",
    "Counters",
    "Event",
    "LeaseExpired",
    "Look",
    "Outcome",
    "Permit",
    "Reason",
    "SettingsChanged",
    "Slice",
    "Snapshot",
    "StateChanged",
    "default_registry",
]

publish(__name__, __all__)
