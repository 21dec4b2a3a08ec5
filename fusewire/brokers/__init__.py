"""Durable queues for parking: one protocol, RabbitMQ for production, SQLite embedded."""

from typing import NoReturn

from fusewire._public import publish
from fusewire.brokers.address import open_broker
from fusewire.brokers.message import HeaderValue, Message
from fusewire.brokers.protocol import Broker, Capabilities, Delivery, Subscription
from fusewire.brokers.rabbitmq import RabbitMQBroker
from fusewire.brokers.sqlite import SQLiteBroker
from fusewire.brokers.topology import DELAY_TIERS, OTHER_LANE, Station, Topology

__all__ = [
    "DELAY_TIERS",
    "OTHER_LANE",
    "Broker",
    "Capabilities",
    "Delivery",
    "HeaderValue",
    "Message",
    "RabbitMQBroker",
    "SQLiteBroker",
    "Station",
    "Subscription",
    "Topology",
    "open_broker",
]


def __getattr__(name: str) -> NoReturn:
    if name in ("Finding", "Severity"):
        raise AttributeError(f"fusewire.brokers.{name} has moved: import fusewire.audit.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


publish(__name__, __all__)
