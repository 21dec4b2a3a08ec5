"""Our brokers pass the conformance kit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import RabbitMQBroker, SQLiteBroker, Topology
from fusewire.brokers.rabbitmq import Layout
from fusewire.testing.conformance import BrokerConformance, Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class TestSQLite(BrokerConformance):
    """The embedded broker."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(lambda: SQLiteBroker(tmp_path / "broker.db"), "orders")


class TestRabbitMQ(BrokerConformance):
    """The production broker."""

    @pytest.fixture
    def place(self, amqp_url: str, queue_name: str, forget_queue: Callable[[str], None]) -> Place:
        for source in (queue_name, f"{queue_name}-single", f"{queue_name}-2"):
            for queue in Layout(Topology(source, ("payments", "added"), (0.2, 60.0))).queues:
                forget_queue(queue)
        return Place(lambda: RabbitMQBroker(amqp_url), queue_name)
