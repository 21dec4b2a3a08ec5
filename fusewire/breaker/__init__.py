"""Circuit breakers: pure state machines, free of I/O, for threads and asyncio alike."""

from fusewire.breaker.calls import CircuitBreaker
from fusewire.breaker.events import Cause, Event, Reason, StateChanged
from fusewire.breaker.permit import Permit
from fusewire.breaker.registry import BreakerRegistry, default_registry
from fusewire.breaker.settings import BreakerSettings
from fusewire.breaker.states import CircuitState, Look, Outcome
from fusewire.errors import CircuitBreakerError, CircuitOpenError

__all__ = [
    "BreakerRegistry",
    "BreakerSettings",
    "Cause",
    "CircuitBreaker",
    "CircuitBreakerError",
    "CircuitOpenError",
    "CircuitState",
    "Event",
    "Look",
    "Outcome",
    "Permit",
    "Reason",
    "StateChanged",
    "default_registry",
]
