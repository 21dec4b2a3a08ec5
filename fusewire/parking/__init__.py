"""Consumers that park, delay, dead-letter and replay messages."""

from fusewire._public import publish
from fusewire.parking._settings import ReplayPolicy, RetryPolicy
from fusewire.parking.consumer import ParkingConsumer
from fusewire.parking.errors import HandlerNotRunError, HandlerTimeoutError, Reject, Retry
from fusewire.parking.events import Happening, MessageEvent
from fusewire.parking.handler import RedeliveryWantedError
from fusewire.parking.record import MalformedMessageError
from fusewire.parking.view import MessageView

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
