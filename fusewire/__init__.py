"""Circuit breakers for gRPC clients, with parking on RabbitMQ while one is open.

The names that most programs need are here; each room has its own too. They are loaded when they are
first used, so that ``import fusewire.breaker`` loads neither gRPC nor a message broker's client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusewire.breaker import (
        BreakerRegistry,
        BreakerSettings,
        CircuitBreaker,
        CircuitState,
        circuit_breaker,
        default_registry,
    )
    from fusewire.errors import CircuitBreakerError, CircuitOpenError, FusewireError, SettingsError
    from fusewire.forwarding import ParkedCalls, ParkPolicy, Receipt
    from fusewire.interceptors import aio_interceptors, guard
    from fusewire.operation import without_fallbacks
    from fusewire.parking import ParkingConsumer, Reject, ReplayPolicy, Retry, RetryPolicy

__all__ = [
    "BreakerRegistry",
    "BreakerSettings",
    "CircuitBreaker",
    "CircuitBreakerError",
    "CircuitOpenError",
    "CircuitState",
    "FusewireError",
    "ParkPolicy",
    "ParkedCalls",
    "ParkingConsumer",
    "Receipt",
    "Reject",
    "ReplayPolicy",
    "Retry",
    "RetryPolicy",
    "SettingsError",
    "aio_interceptors",
    "circuit_breaker",
    "default_registry",
    "guard",
    "without_fallbacks",
]

_HOMES = {
    "BreakerRegistry": "breaker",
    "BreakerSettings": "breaker",
    "CircuitBreaker": "breaker",
    "CircuitBreakerError": "errors",
    "CircuitOpenError": "errors",
    "CircuitState": "breaker",
    "FusewireError": "errors",
    "ParkPolicy": "forwarding",
    "ParkedCalls": "forwarding",
    "ParkingConsumer": "parking",
    "Receipt": "forwarding",
    "Reject": "parking",
    "ReplayPolicy": "parking",
    "Retry": "parking",
    "RetryPolicy": "parking",
    "SettingsError": "errors",
    "aio_interceptors": "interceptors",
    "circuit_breaker": "breaker",
    "default_registry": "breaker",
    "guard": "interceptors",
    "without_fallbacks": "operation",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fusewire' has no attribute {name!r}")
    value: object = getattr(import_module(f"fusewire.{home}"), name)
    globals()[name] = value  # the next use finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
