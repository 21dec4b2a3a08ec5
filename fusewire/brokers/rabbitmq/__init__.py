"""The production broker: quorum queues on RabbitMQ, through aio-pika."""

from fusewire.brokers.rabbitmq.broker import RabbitMQBroker
from fusewire.brokers.rabbitmq.kinds import STREAM
from fusewire.brokers.rabbitmq.layout import Layout
from fusewire.brokers.rabbitmq.management_address import ManagementAddress
from fusewire.brokers.rabbitmq.queues import (
    DELIVERY_LIMIT_SINCE,
    kept_arguments,
    queue_arguments,
)

__all__ = [
    "DELIVERY_LIMIT_SINCE",
    "STREAM",
    "Layout",
    "ManagementAddress",
    "RabbitMQBroker",
    "kept_arguments",
    "queue_arguments",
]
