"""A receiver changes its prefetch while it runs, and may hold nothing for a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message, RabbitMQBroker, open_broker
from fusewire.errors import BrokerUnavailableError
from fusewire.parking._decisions import Recycle
from fusewire.parking._receiver import Receiver
from fusewire.parking._status_watch import BrokerContact
from fusewire.parking._survived_returns import SurvivedReturns
from fusewire.parking._waiting import wait_any
from fusewire.testing import InMemoryBroker
from tests.support.virtual_loop import VirtualLoop
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fusewire.brokers import Broker, Delivery, Subscription
    from tests.support.rabbitmq import OwnRabbitMQ


class Bench:
    """A receiver of one queue, whose messages end when the test says so.

    What is called ``waits…`` waits for its turn, and goes back when its receiver leaves.
    """

    def __init__(self, broker: Broker, queue: str) -> None:
        self.broker = broker
        self.queue = queue
        self.begun: list[str] = []
        self.settled: list[str] = []
        self.handed_back: Counter[str] = Counter()
        self.redelivered: Counter[str] = Counter()
        self.subscribed: list[int] = []
        self.refusals = 0
        self.tries = 0
        self.ready = asyncio.Event()
        self.ready.set()
        self.stopping = asyncio.Event()
        self._ends: dict[str, asyncio.Event] = {}

    def start(self, *, prefetch: int) -> asyncio.Task[None]:
        settler = SimpleNamespace(is_settling=lambda _delivery: False)
        context: Any = SimpleNamespace(
            broker=self,
            settler=settler,
            contact=BrokerContact("q"),
            survived=SurvivedReturns(),
            stopping=self.stopping,
            shutdown_timeout=5,
        )
        self.receiver = Receiver(
            context,
            self.queue,
            prefetch=prefetch,
            work=self._take,
            hand_back=self._hand_back,
            ready=lambda: wait_any(self.ready, self.stopping),
            unseen_too=True,
        )
        return asyncio.create_task(self.receiver.run())

    @contextlib.asynccontextmanager
    async def receiving(self, *, prefetch: int) -> AsyncIterator[Receiver]:
        running = self.start(prefetch=prefetch)
        try:
            yield self.receiver
        finally:
            self.stopping.set()
            await running

    async def subscribe(self, station: str, *, prefetch: int) -> Subscription:
        self.tries += 1
        if self.refusals:
            self.refusals -= 1
            raise BrokerUnavailableError("not now")
        subscription = await self.broker.subscribe(station, prefetch=prefetch)
        self.subscribed.append(prefetch)
        return subscription

    async def send(self, *bodies: str) -> None:
        for body in bodies:
            await self.broker.publish(self.queue, Message(body=body.encode()))

    def end(self, *bodies: str) -> None:
        for body in bodies:
            self._ends.setdefault(body, asyncio.Event()).set()

    def has_changed(self) -> bool:
        """Whether the latest subscription receives: each former one is cancelled.

        RabbitMQ takes back what a queue gives to a consumer while that is cancelled. It would come
        as redelivered.
        """
        latest = self.receiver._held[-1]
        return latest.prefetch == self.receiver.prefetch and latest.receiving

    async def holds(self, count: int) -> bool:
        return await self.broker.depth(self.queue) == count

    async def _take(self, delivery: Delivery) -> Recycle | None:
        body = delivery.message.body.decode()
        self.begun.append(body)
        self.redelivered[body] += delivery.redelivered
        end = self._ends.setdefault(body, asyncio.Event())
        if body.startswith("waits"):
            while not end.is_set():
                if self.receiver.ending:
                    return Recycle(tried=False)
                await wait_any(end, self.stopping, self.receiver._recycle)
        await end.wait()
        await delivery.done()
        self.settled.append(body)
        return None

    async def _hand_back(self, delivery: Delivery, tried: bool) -> None:  # noqa: FBT001 - a callback
        assert not tried
        self.handed_back[delivery.message.body.decode()] += 1


@pytest.fixture(params=["memory", "sqlite", "rabbitmq"])
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, queue_name: str
) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "memory":
            broker: Broker = InMemoryBroker()
        elif request.param == "sqlite":
            broker = open_broker(f"sqlite:///{tmp_path}/broker.db")
        else:
            broker = open_broker(request.getfixturevalue("amqp_url"))
        await stack.enter_async_context(broker)
        await broker.create_queue(queue_name)
        yield Bench(broker, queue_name)


async def test_more_are_worked_on_after_a_resize_and_none_goes_back(bench: Bench) -> None:
    await bench.send(*"abcdef")
    async with bench.receiving(prefetch=1) as receiver:
        await until(lambda: bench.begun == ["a"])
        receiver.resize(3)
        await until(lambda: len(bench.begun) == 3)
        assert bench.subscribed == [1, 3]
        bench.end(*"abcdef")
        await until(lambda: bench.settled == list("abcdef"))
    assert bench.begun == list("abcdef")
    assert not bench.redelivered.total()
    assert not bench.handed_back


async def test_fewer_are_worked_on_after_a_resize_and_those_that_run_finish(bench: Bench) -> None:
    await bench.send(*"abcdef")
    async with bench.receiving(prefetch=3) as receiver:
        await until(lambda: bench.begun == list("abc"))
        receiver.resize(1)
        await until(lambda: bench.subscribed == [3, 1])
        bench.end(*"abc")
        await until(lambda: sorted(bench.settled) == list("abc"))
        await until(lambda: bench.begun == list("abcd"))
        bench.end("d")
        await until(lambda: bench.begun == list("abcde"))
        bench.end(*"ef")
        await until(lambda: len(bench.settled) == 6)
    assert not bench.redelivered.total()
    assert not bench.handed_back


async def test_a_handler_that_does_not_end_hinders_no_resize(bench: Bench) -> None:
    await bench.send(*"abcdefg")
    async with bench.receiving(prefetch=1) as receiver:
        await until(lambda: bench.begun == ["a"])
        receiver.resize(2)
        await until(lambda: bench.subscribed == [1, 2])
        receiver.resize(4)
        await until(lambda: bench.subscribed == [1, 2, 4])
        bench.end(*"bcdefg")
        await until(lambda: sorted(bench.settled) == list("bcdefg"))
        receiver.resize(1)
        await until(lambda: bench.subscribed == [1, 2, 4, 1])
        bench.end("a")
        await until(lambda: bench.settled[-1] == "a")
    assert not bench.redelivered.total()


async def test_the_latest_of_several_wishes_is_the_one_that_is_met(bench: Bench) -> None:
    async with bench.receiving(prefetch=2) as receiver:
        await until(lambda: bench.subscribed == [2])
        receiver.resize(8)
        receiver.resize(5)
        receiver.resize(4)
        await until(lambda: len(bench.subscribed) == 2)
        receiver.resize(4)
        await bench.send("a")
        bench.end("a")
        await until(lambda: bench.settled == ["a"])
        assert receiver.prefetch == 4
    assert bench.subscribed == [2, 4]


async def test_who_leaves_finishes_what_runs_and_holds_nothing_until_it_is_ready_again(
    bench: Bench,
) -> None:
    await bench.send("a", "waits", "b")
    async with bench.receiving(prefetch=2) as receiver:
        await until(lambda: bench.begun == ["a", "waits"])
        bench.ready.clear()
        receiver.leave()
        bench.end("a")
        await until(lambda: bench.holds(2))
        await bench.send("c")
        assert bench.begun == ["a", "waits"]
        assert bench.settled == ["a"]
        assert bench.subscribed == [2]
        bench.end("waits", "b", "c")
        bench.ready.set()
        await until(lambda: len(bench.settled) == 4)
    assert bench.redelivered.keys() - {"waits"} <= {"a", "b", "c"}
    assert bench.begun.count("a") == bench.begun.count("b") == 1


async def test_an_error_while_it_subscribes_again_leaves_the_former_subscription_in_place(
    bench: Bench,
) -> None:
    bench.end(*"abc")
    await bench.send("a")
    async with bench.receiving(prefetch=1) as receiver:
        await until(lambda: bench.settled == ["a"])
        bench.refusals = 1000
        receiver.resize(2)
        await until(lambda: bench.tries > 2)
        await bench.send("b")
        await until(lambda: bench.settled == ["a", "b"])
        bench.refusals = 0
        await until(bench.has_changed)
        assert bench.subscribed == [1, 2]
        await bench.send("c")
        await until(lambda: bench.settled == ["a", "b", "c"])
    assert not bench.redelivered.total()


async def test_what_is_in_flight_of_two_subscriptions_is_settled_or_goes_back_at_the_end(
    bench: Bench,
) -> None:
    await bench.send("a", "waits", "b", "waits too")
    async with bench.receiving(prefetch=2) as receiver:
        await until(lambda: bench.begun == ["a", "waits"])
        receiver.resize(3)
        await until(lambda: bench.subscribed == [2, 3])
        await until(lambda: bench.holds(0))
        bench.stopping.set()
        bench.end("a", "b")
    left = 4 - len(bench.settled)
    assert "a" in bench.settled
    assert bench.handed_back.keys() >= {"waits"}
    await until(lambda: bench.holds(left))


def test_a_broker_that_refuses_a_second_subscription_is_asked_less_and_less() -> None:
    async def tries_in_a_minute() -> int:
        async with InMemoryBroker() as broker:
            await broker.create_queue("q")
            bench = Bench(broker, "q")
            async with bench.receiving(prefetch=1) as receiver:
                await asyncio.sleep(1)
                bench.refusals = 1000
                receiver.resize(2)
                for number in range(600):  # what is settled meanwhile is no reason to hurry
                    bench.end(str(number))
                    await bench.send(str(number))
                    await asyncio.sleep(0.1)
            assert len(bench.settled) == 600
            return bench.tries

    with contextlib.closing(VirtualLoop()) as loop:
        assert 10 < loop.run(tries_in_a_minute()) < 40


def test_what_is_the_brokers_again_is_not_handed_back() -> None:
    async def handed_back() -> Counter[str]:
        async with InMemoryBroker() as broker:
            await broker.create_queue("q")
            bench = Bench(broker, "q")
            await bench.send("a", "waits")
            async with bench.receiving(prefetch=2) as receiver:
                await asyncio.sleep(1)
                receiver.leave()
                await asyncio.sleep(1)
                for subscription in tuple(broker._subscriptions):
                    subscription.end()
                bench.end("a", "waits")
                await asyncio.sleep(10)
            return bench.handed_back

    with contextlib.closing(VirtualLoop()) as loop:
        assert not loop.run(handed_back())


@pytest.mark.timeout(300)  # rabbitmqctl takes seconds on a loaded machine
async def test_rabbitmq_counts_no_message_and_no_consumer_of_one_who_has_left(
    private_rabbitmq: OwnRabbitMQ,
) -> None:
    async def counted(queue: str) -> tuple[int, int]:
        listed = await asyncio.to_thread(
            private_rabbitmq.ctl, "list_queues", "name", "messages_unacknowledged", "consumers"
        )
        [found] = [line.split()[1:] for line in listed.splitlines() if line.startswith(queue)]
        return int(found[0]), int(found[1])

    async def unacknowledged(count: int) -> bool:
        return (await counted("resized"))[0] == count

    async def nothing() -> bool:
        return await counted("resized") == (0, 0)

    async with RabbitMQBroker(private_rabbitmq.url) as broker:
        await broker.create_queue("resized")
        bench = Bench(broker, "resized")
        messages = [f"waits {number}" for number in range(30)]
        await bench.send(*messages)
        async with bench.receiving(prefetch=10) as receiver:
            await until(lambda: unacknowledged(10))
            receiver.resize(2)
            await until(lambda: unacknowledged(12))
            bench.end(*messages[:10])
            await until(lambda: unacknowledged(2))
            receiver.resize(8)
            await until(lambda: unacknowledged(10))
            bench.ready.clear()
            receiver.leave()
            await until(nothing)
            bench.end(*messages)
            bench.ready.set()
            await until(lambda: len(bench.settled) == 30)
            await until(lambda: unacknowledged(0))
    assert Counter(bench.settled) == Counter(messages)
