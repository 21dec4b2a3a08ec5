"""Consumers that park, delay, dead-letter and replay messages."""

import warnings
from typing import TYPE_CHECKING

from fusewire._public import publish
from fusewire.parking._asking import FunctionExitError
from fusewire.parking._consumer import ParkingConsumer
from fusewire.parking._errors import HandlerNotRunError, HandlerTimeoutError, Reject, Retry
from fusewire.parking._events import MessageEvent, MessageOutcome
from fusewire.parking._handler import RedeliveryWantedError
from fusewire.parking._history import MalformedMessageError
from fusewire.parking._replay_controller import ReplayFailure, ReplayFigures
from fusewire.parking._settings import ReplayPolicy, RetryPolicy
from fusewire.parking._status import ConsumerStatus, Depth, LaneStatus
from fusewire.parking._tracing import MessageSpan, MessageTracer, ReceivedMessage
from fusewire.parking._view import MessageView

__all__ = [
    "ConsumerStatus",
    "Depth",
    "FunctionExitError",
    "HandlerNotRunError",
    "HandlerTimeoutError",
    "LaneStatus",
    "MalformedMessageError",
    "MessageEvent",
    "MessageOutcome",
    "MessageSpan",
    "MessageTracer",
    "MessageView",
    "ParkingConsumer",
    "ReceivedMessage",
    "RedeliveryWantedError",
    "Reject",
    "ReplayFailure",
    "ReplayFigures",
    "ReplayPolicy",
    "Retry",
    "RetryPolicy",
]


if not TYPE_CHECKING:  # or type checkers would take every name for one of this package

    def __getattr__(name: str) -> type:
        if name != "Happening":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warnings.warn(
            "fusewire.parking.Happening is now fusewire.parking.MessageOutcome",
            DeprecationWarning,
            stacklevel=2,
        )
        return MessageOutcome


publish(__name__, __all__)
