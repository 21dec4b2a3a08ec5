"""The production broker: quorum queues on RabbitMQ, through aio-pika."""

from fusewire.brokers.rabbitmq._arguments import (
    DELIVERY_LIMIT_SINCE,
    kept_arguments,
    queue_arguments,
)
from fusewire.brokers.rabbitmq._broker import RabbitMQBroker
from fusewire.brokers.rabbitmq._layout import Layout
from fusewire.brokers.rabbitmq._management_address import ManagementAddress
from fusewire.brokers.rabbitmq._queue_type import STREAM

__all__ = [
    "DELIVERY_LIMIT_SINCE",
    "STREAM",
    "Layout",
    "ManagementAddress",
    "RabbitMQBroker",
    "kept_arguments",
    "queue_arguments",
]
