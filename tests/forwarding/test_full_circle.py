"""The full circle, killed at random: a shop that parks, the forwarder, and the server.

`FUSEWIRE_TEST_CIRCLE` names the number of orders; there is a kill for every six. Neither ledger,
the shop's nor the server's, has a constraint that would keep an order from standing in it twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message, Topology, open_broker
from fusewire.idempotency._sql import Dialect
from fusewire.parking._history import strip
from tests.support import circle_worker
from tests.support.idempotent_places import Database
from tests.support.payments import PaymentsProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from fusewire.brokers import Broker
    from tests.support.processes import KeptProcess

ORDERS = int(os.environ.get("FUSEWIRE_TEST_CIRCLE", "72"))
EACH = 6  # orders that come together, with a kill among them
_LATE = 5.0  # seconds by which RabbitMQ's counts may be late
_LIMIT = 300.0  # seconds until all is done, once nothing is killed any more


class Circle:
    """The three processes, and what became of the orders.

    Attributes:
        kills: how often each was killed.
    """

    def __init__(self, address: str, broker: Broker, queue: str, folder: Path) -> None:
        self._address = address
        self._broker = broker
        self._queue = queue
        self._folder = folder
        self.orders = Topology(queue, delays=circle_worker.RETRY.delays)
        self.charges = Topology(f"{queue}.charges", delays=circle_worker.RETRY.delays)
        self.shop = Database(Dialect.SQLITE, f"{folder}/shop.db", None)
        self.server = PaymentsProcess(folder)
        self.server.think_time = 0.05  # so that kills come between a commit and its reply
        self.workers: dict[str, KeptProcess] = {}
        self.kills: Counter[str] = Counter()

    async def open(self) -> None:
        self.shop.create()
        for topology in (self.orders, self.charges):
            await self._broker.create_queue(topology.source)
            await self._broker.prepare(topology)
        await asyncio.to_thread(self.server.start)
        for role in ("shop", "forwarder"):
            self._start(role)

    async def close(self) -> None:
        for worker in self.workers.values():
            worker.kill()
        await asyncio.to_thread(self.server.close)

    def _start(self, role: str) -> None:
        self.workers[role] = circle_worker.start(
            role, self._address, self._queue, self.server.target, self._folder
        )

    async def order(self, number: int) -> None:
        order = f"order-{number}"
        await self._broker.publish(self._queue, Message(body=order.encode(), message_id=order))

    async def kill(self, chance: random.Random) -> None:
        """Kill one of the three, and start it again after a while."""
        role = chance.choice(["shop", "forwarder", "server"])
        self.kills[role] += 1
        if role == "server":
            await asyncio.to_thread(self.server.kill)
        else:
            self.workers[role].kill()
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        if role == "server":
            await asyncio.to_thread(self.server.start)
        else:
            self._start(role)

    async def ends(self) -> None:
        """Wait until nothing is left to do, then end in order what runs."""
        while True:
            await until(self._is_done, "all orders are done", limit=_LIMIT)
            for role, worker in self.workers.items():
                assert await asyncio.to_thread(worker.stop, 60) == 0, role
            if await self._stays_empty():
                return
            for role in self.workers:  # a copy was in flight, and is there again
                self._start(role)

    async def _stays_empty(self) -> bool:
        end = time.monotonic() + _LATE
        while time.monotonic() < end:
            if not await self._nothing_waits():
                return False
            await asyncio.sleep(0.1)
        return True

    async def _is_done(self) -> bool:
        for topology in (self.orders, self.charges):  # what has just been started ends by a signal
            if not await self._broker.receivers(topology.source):
                return False
        if not await self._nothing_waits():
            return False
        entered = {str(order) for (order,) in self.shop.execute("SELECT operation FROM ledger")}
        orders = {f"order-{number}" for number in range(ORDERS)}
        return orders <= entered and orders <= set(self.server.references())

    async def _nothing_waits(self) -> bool:
        for topology in (self.orders, self.charges):
            await self._revive(topology)
            for station in (*topology.stations, topology.delayed):
                if await self._broker.depth(station):
                    return False
        return True

    async def _revive(self, topology: Topology) -> None:
        """Be the person who looks at what is dead because its process was killed too often."""
        if not await self._broker.depth(topology.dead):
            return
        subscription = await self._broker.subscribe(topology.dead, prefetch=1)
        try:
            async with asyncio.timeout(5):
                delivery = await subscription.receive()
            message = delivery.message
            assert message.headers["fusewire-reason"] == "crashed", message.headers
            self.kills["crashed"] += 1
            fresh = dataclasses.replace(message, headers=strip(message.headers))
            await delivery.move(topology.source, fresh)
        finally:
            await subscription.release()

    def figures(self) -> dict[str, Any]:
        """Return what became of the orders, by the records of the shop and of the server."""
        charged = self.server.references()
        entered = Counter(
            str(order) for (order,) in self.shop.execute("SELECT operation FROM ledger")
        )
        replies: defaultdict[str, set[str]] = defaultdict(set)
        for line in (self._folder / "replies").read_text().splitlines():
            key, digest = line.split(" ")
            replies[key].add(digest)
        orders = [f"order-{number}" for number in range(ORDERS)]
        return {
            "orders": ORDERS,
            "kills": dict(self.kills),
            "parked": sum(entry.startswith("pending ") for entry in entered),
            "missing": [order for order in orders if not (charged[order] and entered[order])],
            "twice": [order for order in orders if charged[order] > 1 or entered[order] > 1],
            "two replies": [key for key, different in replies.items() if len(different) > 1],
        }


@pytest.fixture(params=["sqlite", "rabbitmq"])
async def circle(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    queue_name: str,
    forget_queue: Callable[[str], None],
) -> AsyncIterator[Circle]:
    """Provide the circle on each broker."""
    if request.param == "rabbitmq":
        address = request.getfixturevalue("amqp_url")
    else:
        address = f"sqlite:///{tmp_path}/broker.db"
    for queue in (queue_name, f"{queue_name}.charges"):
        forget_queue(queue)
        for suffix in ("dead", "parked.other", "delay.100", "delay.500"):
            forget_queue(f"{queue}.{suffix}")
    async with open_broker(address) as broker:
        made = Circle(address, broker, queue_name, tmp_path)
        await made.open()
        yield made
        await made.close()


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_every_order_is_charged_once_whoever_is_killed(
    circle: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, begin = random.Random(ORDERS), time.monotonic()
    for first in range(0, ORDERS, EACH):
        await asyncio.sleep(chance.uniform(0.5, 1.5))
        for number in range(first, min(first + EACH, ORDERS)):
            await circle.order(number)
        await asyncio.sleep(chance.uniform(0.0, 0.3))  # in the middle of them, or of what waited
        await circle.kill(chance)
    await circle.ends()
    figures = circle.figures() | {"seconds": round(time.monotonic() - begin)}
    with capsys.disabled():
        print(f"\n{figures}")  # noqa: T201 - the figures of the run
    assert figures["parked"] > 0
    assert (figures["missing"], figures["twice"], figures["two replies"]) == ([], [], [])
