"""The production broker: quorum queues on RabbitMQ, through aio-pika."""

from fusewire.brokers.rabbitmq.broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
