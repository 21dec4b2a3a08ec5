"""Consumers that park, delay, dead-letter and replay messages."""

from fusewire._public import publish
from fusewire.parking._consumer import ParkingConsumer
from fusewire.parking._errors import HandlerNotRunError, HandlerTimeoutError, Reject, Retry
from fusewire.parking._events import Happening, MessageEvent
from fusewire.parking._handler import RedeliveryWantedError
from fusewire.parking._history import MalformedMessageError
from fusewire.parking._settings import ReplayPolicy, RetryPolicy
from fusewire.parking._view import MessageView

__all__ = [
    "HandlerNotRunError",
    "HandlerTimeoutError",
    "Happening",
    "MalformedMessageError",
    "MessageEvent",
    "MessageView",
    "ParkingConsumer",
    "RedeliveryWantedError",
    "Reject",
    "ReplayPolicy",
    "Retry",
    "RetryPolicy",
]

publish(__name__, __all__)
