"""Durable queues for parking: one protocol, RabbitMQ for production, SQLite embedded."""

from fusewire.brokers.address import open_broker
from fusewire.brokers.findings import Finding, Severity
from fusewire.brokers.message import HeaderValue, Message
from fusewire.brokers.protocol import Broker, Delivery, Subscription
from fusewire.brokers.rabbitmq import RabbitMQBroker
from fusewire.brokers.sqlite import SQLiteBroker
from fusewire.brokers.topology import DELAY_TIERS, OTHER_LANE, Topology

__all__ = [
    "DELAY_TIERS",
    "OTHER_LANE",
    "Broker",
    "Delivery",
    "Finding",
    "HeaderValue",
    "Message",
    "RabbitMQBroker",
    "SQLiteBroker",
    "Severity",
    "Subscription",
    "Topology",
    "open_broker",
]
