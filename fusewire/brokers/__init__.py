"""Durable queues for parking: one protocol, RabbitMQ for production, SQLite embedded."""

from typing import NoReturn

from fusewire._public import publish
from fusewire.brokers.address import open_broker
from fusewire.brokers.message import HeaderValue, Message
from fusewire.brokers.protocol import (
    Broker,
    Capabilities,
    Delivery,
    FoundMessage,
    SearchableBroker,
    Subscription,
)
from fusewire.brokers.rabbitmq import RabbitMQBroker
from fusewire.brokers.sqlite import SQLiteBroker
from fusewire.brokers.topology import DEFAULT_DELAYS, OTHER_LANE, Station, Topology

__all__ = [
    "DEFAULT_DELAYS",
    "OTHER_LANE",
    "Broker",
    "Capabilities",
    "Delivery",
    "FoundMessage",
    "HeaderValue",
    "Message",
    "RabbitMQBroker",
    "SQLiteBroker",
    "SearchableBroker",
    "Station",
    "Subscription",
    "Topology",
    "open_broker",
]


_MOVED = {
    "DELAY_TIERS": "fusewire.brokers.DEFAULT_DELAYS",
    "Finding": "fusewire.audit.Finding",
    "Severity": "fusewire.audit.Severity",
}


def __getattr__(name: str) -> NoReturn:
    if name in _MOVED:
        raise AttributeError(f"fusewire.brokers.{name} has moved: import {_MOVED[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


publish(__name__, __all__)
