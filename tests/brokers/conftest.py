"""Every broker, one after the other, for tests that hold of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import RabbitMQBroker, SQLiteBroker, Topology
from fusewire.brokers.rabbitmq import Layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from fusewire.brokers import Broker

_TIERS = (0.2, 60.0)  # seconds: one to wait for, and one to stay in


@dataclass(frozen=True)
class Place:
    """Where messages lie: any number of brokers may be opened on it, as several processes would."""

    open: Callable[[], Broker]
    topology: Topology


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # If only `getfixturevalue` below asked for it, the hook that starts RabbitMQ before the first
    # test would not see the fixture.
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("place") == "rabbitmq":
            assert isinstance(item, pytest.Function)
            item.fixturenames = ["rabbitmq", *item.fixturenames]


@pytest.fixture(params=["sqlite", "rabbitmq"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        path = tmp_path / "broker.db"
        return Place(lambda: SQLiteBroker(path), Topology("orders", delays=_TIERS))
    url = request.getfixturevalue("rabbitmq").url
    topology = Topology(request.getfixturevalue("queue_name"), delays=_TIERS)
    for queue in Layout(topology).derived:
        request.getfixturevalue("forget_queue")(queue)
    return Place(lambda: RabbitMQBroker(url), topology)


@pytest.fixture
def topology(place: Place) -> Topology:
    return place.topology


@pytest.fixture
async def broker(place: Place) -> AsyncIterator[Broker]:
    async with place.open() as opened:
        await opened.create_queue(place.topology.source)
        await opened.prepare(place.topology)
        yield opened
