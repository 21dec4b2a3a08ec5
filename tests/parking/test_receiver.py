"""A receiver changes its prefetch while it runs, and may hold nothing for a time."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fusewire.brokers import Message
from fusewire.errors import BrokerUnavailableError
from fusewire.parking._decisions import Recycle
from fusewire.parking._receiver import Receiver
from fusewire.parking._waiting import wait_any
from fusewire.testing import InMemoryBroker
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fusewire.brokers import Broker, Delivery, Subscription


class Bench:
    """A receiver of one queue whose deliveries end when the test says so."""

    def __init__(self, broker: Broker, *, prefetch: int) -> None:
        self.broker = broker
        self.begun: list[str] = []
        self.settled: list[str] = []
        self.handed_back: list[str] = []
        self.subscribed: deque[int] = deque()
        self.refuse = 0
        self.present = asyncio.Event()
        self.present.set()
        self.stopping = asyncio.Event()
        self._may_end: dict[str, asyncio.Event] = {}
        settler = SimpleNamespace(is_settling=lambda _delivery: False)
        context: Any = SimpleNamespace(
            broker=self, settler=settler, stopping=self.stopping, shutdown_timeout=5
        )
        self.receiver = Receiver(
            context,
            "q",
            prefetch=prefetch,
            work=self._take,
            hand_back=self._hand_back,
            ready=self._ready,
            unseen_too=True,
        )

    async def subscribe(self, station: str, *, prefetch: int) -> Subscription:
        if self.refuse:
            self.refuse -= 1
            raise BrokerUnavailableError("not now")
        subscription = await self.broker.subscribe(station, prefetch=prefetch)
        self.subscribed.append(prefetch)
        return subscription

    async def send(self, *bodies: str) -> None:
        for body in bodies:
            await self.broker.publish("q", Message(body=body.encode()))

    def end(self, *bodies: str) -> None:
        for body in bodies:
            self._may_end.setdefault(body, asyncio.Event()).set()

    async def _take(self, delivery: Delivery) -> Recycle | None:
        body = delivery.message.body.decode()
        self.begun.append(body)
        may_end = self._may_end.setdefault(body, asyncio.Event())
        while not may_end.is_set():
            if body.startswith("waits") and self.receiver.ending:
                return Recycle(tried=False)
            await asyncio.sleep(0)
        await delivery.done()
        self.settled.append(body)
        return None

    async def _hand_back(self, delivery: Delivery, _tried: bool) -> None:  # noqa: FBT001 - a callback
        self.handed_back.append(delivery.message.body.decode())

    async def _ready(self) -> None:
        await wait_any(self.present, self.stopping)


@asynccontextmanager
async def receiving(*, prefetch: int) -> AsyncIterator[Bench]:
    async with InMemoryBroker() as broker:
        await broker.create_queue("q")
        bench = Bench(broker, prefetch=prefetch)
        running = asyncio.create_task(bench.receiver.run())
        try:
            yield bench
        finally:
            bench.stopping.set()
            await asyncio.wait_for(running, 20)


async def test_more_are_in_flight_after_a_resize_and_none_goes_back() -> None:
    async with receiving(prefetch=1) as bench:
        await bench.send(*"abcde")
        await until(lambda: bench.begun == ["a"])
        bench.receiver.resize(3)
        await until(lambda: len(bench.begun) == 3)
        bench.end(*"abcde")
        await until(lambda: len(bench.settled) == 5)
    assert bench.subscribed == deque([1, 3])
    assert bench.settled == list("abcde")
    assert bench.handed_back == []


async def test_who_leaves_holds_nothing_until_it_is_ready_again() -> None:
    async with receiving(prefetch=2) as bench:
        await bench.send("a", "waits", "b")
        await until(lambda: bench.begun == ["a", "waits"])
        bench.present.clear()
        bench.receiver.leave()
        bench.end("a")
        await until(lambda: waiting(bench, 2))
        assert bench.begun == ["a", "waits"]
        assert bench.settled == ["a"]
        bench.end("waits", "b")
        bench.present.set()
        await until(lambda: bench.settled == ["a", "waits", "b"])


async def waiting(bench: Bench, count: int) -> bool:
    return await bench.broker.depth("q") == count


async def test_an_error_while_it_resizes_leaves_the_former_subscription_in_place() -> None:
    async with receiving(prefetch=1) as bench:
        bench.end(*"abc")
        await bench.send("a")
        await until(lambda: bench.settled == ["a"])
        bench.refuse = 2
        bench.receiver.resize(2)
        await bench.send("b")
        await until(lambda: bench.settled == ["a", "b"])
        await until(lambda: bench.subscribed == deque([1, 2]))
        await bench.send("c")
        await until(lambda: bench.settled == ["a", "b", "c"])
