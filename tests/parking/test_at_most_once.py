"""What must not be tried twice is not, whatever becomes of its moves and its consumers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Topology
from fusewire.brokers.rabbitmq._subscription import RabbitMQDelivery
from fusewire.brokers.sqlite._subscription import SQLiteDelivery
from fusewire.errors import MoveRefusedError, UnconfirmedError
from fusewire.parking._deliveries import Deliveries
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Delivery, Message, Station
    from tests.parking.conftest import Bench

ONCE = {"fusewire-at-most-once": True}


class Moves:
    """Has moves to a lane fail in a way, as often as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
        self._broker = bench.broker
        self.way = ""
        self.left = self.count = 0
        self.begun = asyncio.Event()
        for kind in (RabbitMQDelivery, SQLiteDelivery):
            monkeypatch.setattr(kind, "move", self._instead(kind.move))

    def fail(self, way: str, times: int = 1) -> None:
        self.way, self.left = way, times

    def _instead(self, move: Callable[..., Any]) -> Callable[..., Any]:
        async def instead(
            delivery: Any, to: Station, message: Message, *, delay: float = 0.0
        ) -> None:
            if to.kind != "lane" or not self.left:
                await move(delivery, to, message, delay=delay)
                return
            self.left -= 1
            self.count += 1
            self.begun.set()
            match self.way:
                case "stored, unconfirmed":
                    await self._broker.publish(to, message)
                    raise UnconfirmedError("the confirm is late")
                case "not stored, unconfirmed":
                    raise UnconfirmedError("the confirm is late")
                case "stored, cut off":
                    await self._broker.publish(to, message)
                    await asyncio.sleep(60)
                case "refused":
                    raise MoveRefusedError("there is no such queue")

        return instead


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Moves:
    return Moves(monkeypatch, bench)


class Handler:
    """Calls a dependency, and counts how often it was really called for each message."""

    def __init__(self, bench: Bench) -> None:
        self.dependency = Dependency(bench.registry)

    @property
    def tries(self) -> Counter[str]:
        return Counter(self.dependency.effects)

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        await self.dependency(message)


def options(on_open: str) -> dict[str, Any]:
    return {"lanes": {"payments": ["payments"]}, "depends_on": "payments", "on_open": on_open}


@pytest.mark.parametrize("way", ["stored, unconfirmed", "not stored, unconfirmed"])
async def test_a_move_in_doubt_is_not_made_again(bench: Bench, moves: Moves, way: str) -> None:
    handler = Handler(bench)
    handler.dependency.trip()
    moves.fail(way)
    await bench.send("a", headers=ONCE)
    async with bench.consumer(handler, **options("park")):
        await until(lambda: bench.happened("dead") == ["a"])
        handler.dependency.recover()
        await bench.send("b", headers=ONCE)
        await until(lambda: handler.tries["b"] == 1)
        await until(lambda: handler.tries["a"] == (way == "stored, unconfirmed"))
        await until_empty(bench)
    assert handler.tries["a"] <= 1
    [dead] = await bench.dead()
    assert dead.headers["fusewire-reason"] == "ambiguous"
    assert "UnconfirmedError" in str(dead.headers["fusewire-exception"])


async def test_what_may_be_tried_again_is_moved_again_when_a_move_is_in_doubt(
    bench: Bench, moves: Moves
) -> None:
    handler = Handler(bench)
    handler.dependency.trip()
    moves.fail("stored, unconfirmed")
    await bench.send("a")
    async with bench.consumer(handler, **options("park")):
        await until(lambda: bench.happened("parked") == ["a"])
        handler.dependency.recover()
        await until(lambda: handler.tries["a"] == 2)  # a duplicate, which its key makes harmless
        await until_empty(bench)
    assert bench.happened("dead") == []


async def test_a_move_that_is_known_to_have_failed_is_made_again(
    bench: Bench, moves: Moves
) -> None:
    handler = Handler(bench)
    handler.dependency.trip()
    moves.fail("refused", times=3)
    await bench.send("a", headers=ONCE)
    async with bench.consumer(handler, **options("park")):
        await until(lambda: bench.happened("parked") == ["a"])
        handler.dependency.recover()
        await until(lambda: handler.tries["a"] == 1)
        await until_empty(bench)
    assert bench.happened("dead") == []


@pytest.mark.parametrize("way", ["stored, unconfirmed", "stored, cut off"])
async def test_a_consumer_that_stops_while_a_move_is_in_doubt_stores_no_other_copy(
    bench: Bench, moves: Moves, way: str
) -> None:
    handler = Handler(bench)
    handler.dependency.trip()
    moves.fail(way, times=2)
    await bench.send("a", headers=ONCE)
    async with bench.consumer(handler, shutdown_timeout=0.2, **options("park")) as consumer:
        await asyncio.wait_for(moves.begun.wait(), 20)
        consumer.stop()
    moves.fail("", times=0)
    async with bench.consumer(handler, **options("park")):
        handler.dependency.recover()
        await bench.send("b", headers=ONCE)
        await until(lambda: handler.tries["b"] == 1)
        await until_empty(bench)
    assert handler.tries["a"] <= 1
    assert {dead.message_id for dead in await bench.dead()} <= {"a"}


async def test_what_was_not_tried_when_its_consumer_stops_is_no_doubt(
    bench: Bench, moves: Moves
) -> None:
    handler = Handler(bench)
    handler.dependency.trip()
    await bench.send(*"abc", headers=ONCE)
    moves.fail("refused", times=10**6)  # all stay in flight, and none is tried
    async with bench.consumer(handler, concurrency=3, **options("park")) as consumer:
        await until(lambda: moves.count >= 6)
        moves.fail("", times=0)
        consumer.stop()
    handler.dependency.recover()
    async with bench.consumer(handler, **options("park")):
        await until(lambda: handler.tries.total() == 3)
        await until_empty(bench)
    assert set(handler.tries.values()) == {1}
    assert await bench.dead() == []


async def test_what_was_not_tried_when_a_queue_that_keeps_its_order_pauses_is_no_doubt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Handler(bench)
    behind = asyncio.Event()
    received: list[Delivery] = []
    one = Deliveries._one

    async def note(deliveries: Deliveries, delivery: Delivery) -> None:
        received.append(delivery)
        await one(deliveries, delivery)

    monkeypatch.setattr(Deliveries, "_one", note)

    async def first_fails(message: AbstractIncomingMessage) -> None:
        if message.body == b"first" and not behind.is_set():
            await bench.send("once", headers=ONCE)
            await until(lambda: len(received) == 2)
            behind.set()
            handler.dependency.trip()
        await handler(message)

    await bench.send("first")
    async with bench.consumer(first_fails, concurrency=1, **options("pause")):
        await asyncio.wait_for(behind.wait(), 30)
        handler.dependency.recover()
        await until(lambda: handler.tries.total() == 2)
        await until_empty(bench)
    assert handler.tries == {"first": 1, "once": 1}
    assert await bench.dead() == []


async def until_empty(bench: Bench) -> None:
    async def is_so() -> bool:
        topology = Topology(bench.queue, ("payments",), (0.05, 0.2))
        stations = (*topology.stations[:-1], topology.delayed)  # not the dead
        return not sum([await bench.broker.depth(station) for station in stations])

    await until(is_so)
