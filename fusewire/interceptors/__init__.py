"""gRPC client interceptors: a circuit breaker on every method, on sync and asyncio channels."""

from fusewire.interceptors.aio_channel import aio_interceptors
from fusewire.interceptors.arguments import (
    BreakerPer,
    ClassifyBySelector,
    SettingsBySelector,
    Streams,
    StreamsBySelector,
)
from fusewire.interceptors.classification import (
    DEFAULT_OUTCOMES,
    Classification,
    Classify,
)
from fusewire.interceptors.ends import CallEnd
from fusewire.interceptors.fallback import (
    FALLBACK_METADATA,
    CallFallback,
    CallInfo,
    Fallback,
    FallbackDeclined,
    SelectiveFallback,
)
from fusewire.interceptors.health import HealthProbe
from fusewire.interceptors.methods import Shape
from fusewire.interceptors.rejection import AioRejectedCall, RejectedCall
from fusewire.interceptors.sync_channel import guard
from fusewire.operation import without_fallbacks

__all__ = [
    "DEFAULT_OUTCOMES",
    "FALLBACK_METADATA",
    "AioRejectedCall",
    "BreakerPer",
    "CallEnd",
    "CallFallback",
    "CallInfo",
    "Classification",
    "Classify",
    "ClassifyBySelector",
    "Fallback",
    "FallbackDeclined",
    "HealthProbe",
    "RejectedCall",
    "SelectiveFallback",
    "SettingsBySelector",
    "Shape",
    "Streams",
    "StreamsBySelector",
    "aio_interceptors",
    "guard",
    "without_fallbacks",
]
