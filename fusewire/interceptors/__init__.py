"""gRPC client interceptors: a circuit breaker on every method, on sync and asyncio channels."""

from fusewire._public import publish
from fusewire.interceptors._aio.interceptors import aio_interceptors
from fusewire.interceptors._aio.rejected import AioRejectedCall
from fusewire.interceptors._arguments import (
    BreakerPer,
    ClassifyBySelector,
    SettingsBySelector,
    Streams,
    StreamsBySelector,
)
from fusewire.interceptors._call_end import CallEnd
from fusewire.interceptors._classification import (
    DEFAULT_OUTCOMES,
    Classification,
    Classify,
)
from fusewire.interceptors._fallback import (
    FALLBACK_METADATA,
    CallFallback,
    CallInfo,
    Fallback,
    FallbackDeclined,
    ProbeLeavingFallback,
    SelectiveFallback,
)
from fusewire.interceptors._health import HealthProbe
from fusewire.interceptors._methods import Shape, check_reply
from fusewire.interceptors._registries import registries_of
from fusewire.interceptors._retry_info import read_retry_after
from fusewire.interceptors._sync.channel import guard
from fusewire.interceptors._sync.completed import RejectedCall
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
    "ProbeLeavingFallback",
    "RejectedCall",
    "SelectiveFallback",
    "SettingsBySelector",
    "Shape",
    "Streams",
    "StreamsBySelector",
    "aio_interceptors",
    "check_reply",
    "guard",
    "read_retry_after",
    "registries_of",
    "without_fallbacks",
]

publish(__name__, __all__)
