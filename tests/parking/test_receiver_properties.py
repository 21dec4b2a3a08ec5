"""Whatever happens to a receiver, and in whatever order, no delivery is lost, doubled or cut off.

Hypothesis resizes it, has it leave and come back, takes its subscriptions away, refuses it others,
stops it and cancels it, at every step of its event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fusewire.brokers import Message
from fusewire.errors import BrokerUnavailableError, DeliveryLostError
from fusewire.parking._decisions import Recycle
from fusewire.parking._receiver import Receiver
from fusewire.parking._status_watch import BrokerContact
from fusewire.parking._survived_returns import SurvivedReturns
from fusewire.parking._waiting import wait_any
from fusewire.testing import InMemoryBroker
from tests.support.virtual_loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fusewire.brokers import Delivery

MOST = 4
"""The largest prefetch."""

PUBLISHED = 40
"""Messages that wait when it starts."""

THEN = st.integers(0, 12) | st.sampled_from([*[0.05, 0.5, 5.0] * 4, 700.0])
"""What follows on what has happened: steps of the event loop, or seconds."""


class Ahead:
    """A subscription that takes messages ahead, as RabbitMQ's does, and answers after some steps.

    Args:
        inner: a subscription of a broker in memory.
        prefetch: how many it takes.
        steps: of the event loop until an operation has ended.
        on_release: called with all that was received, when it is released.
    """

    def __init__(
        self, inner: Any, prefetch: int, steps: int, on_release: Callable[[list[Delivery]], None]
    ) -> None:
        self.prefetch = prefetch
        self.quiet = False
        self.released = False
        self.taken_away = False
        self.begun = 0
        self.given: list[Delivery] = []
        self._inner = inner
        self._on_release = on_release
        self._steps = steps
        self._arrived: deque[Delivery] = deque()
        self._changed = asyncio.Event()
        self._error: BrokerUnavailableError | None = None
        self._taking = asyncio.ensure_future(self._take())

    async def receive(self) -> Delivery:
        while True:
            self._changed.clear()
            if self._error is not None:
                raise self._error
            if self._arrived:
                self.given.append(self._arrived.popleft())
                return self.given[-1]
            await self._changed.wait()

    async def quiesce(self) -> Sequence[Delivery]:
        assert not self.quiet
        await self._some_steps()
        self.quiet = True
        self._taking.cancel()
        await asyncio.wait([self._taking])
        await self._inner.quiesce()
        left = [] if self._error else list(self._arrived)
        self._arrived.clear()
        self.given += left
        return left

    async def release(self) -> None:
        if not self._error:
            self._on_release(self.given)
        self._end()
        await self._some_steps()

    def take_away(self) -> None:
        """Lose the connection."""
        self.taken_away = True
        self._end()

    def _end(self) -> None:
        self.released = self.released or not self.taken_away
        self._error = self._error or BrokerUnavailableError("lost")
        self._taking.cancel()
        self._inner.end()
        self._changed.set()

    async def _take(self) -> None:
        with contextlib.suppress(BrokerUnavailableError):
            while True:
                self._arrived.append(await self._inner.receive())
                self._changed.set()

    async def _some_steps(self) -> None:
        for _ in range(self._steps):
            await asyncio.sleep(0)


class Worker:
    """What a consumer's worker does with deliveries, and what the test sees of it."""

    receiver: Receiver

    def __init__(self, broker: InMemoryBroker, *, steps: int) -> None:
        self.broker = broker
        self.stopping = asyncio.Event()
        self.present = asyncio.Event()
        self.present.set()
        self.refusals = 0
        self.hurry = False
        self.subscriptions: list[Ahead] = []
        self.waiting: dict[Delivery, asyncio.Event] = {}
        self.handling: dict[Delivery, asyncio.Event] = {}
        self.settled: Counter[str] = Counter()
        self.accounted: set[Delivery] = set()
        self.abandoned = False
        self.wrong: list[str] = []
        self._steps = steps

    async def subscribe(self, station: str, *, prefetch: int) -> Ahead:
        for _ in range(self._steps):
            await asyncio.sleep(0)
        if self.refusals:
            self.refusals -= 1
            raise BrokerUnavailableError("not now")
        inner = await self.broker.subscribe(station, prefetch=prefetch)
        self.subscriptions.append(Ahead(inner, prefetch, self._steps, self._see_it_released))
        return self.subscriptions[-1]

    async def ready(self) -> None:
        await wait_any(self.present, self.stopping)

    async def take(self, delivery: Delivery) -> Recycle | None:
        self._see_it_begin(delivery)
        if not await self._its_turn(delivery):
            return None if delivery.lost else Recycle(tried=False)
        try:
            await self._until(self.handling, delivery)
            await delivery.done()
        except DeliveryLostError:
            return None
        except asyncio.CancelledError:
            if not (self.receiver.ending or self.abandoned):
                self.wrong.append("its handler was cut off")
            self.accounted.add(delivery)
            raise
        finally:
            del self.handling[delivery]
        self.accounted.add(delivery)
        self.settled[delivery.message.body.decode()] += 1
        return None

    async def _its_turn(self, delivery: Delivery) -> bool:
        turn = asyncio.ensure_future(self._until(self.waiting, delivery))
        ending = asyncio.ensure_future(self.receiver.linger(3600))
        try:
            while not (turn.done() or delivery.lost or self.receiver.ending):
                await asyncio.wait([turn, ending], timeout=10, return_when=asyncio.FIRST_COMPLETED)
            return turn.done()
        finally:
            turn.cancel()
            ending.cancel()
            del self.waiting[delivery]
            if turn.done():
                self.handling[delivery] = asyncio.Event()

    async def _until(self, held: dict[Delivery, asyncio.Event], delivery: Delivery) -> None:
        event = held.setdefault(delivery, asyncio.Event())
        if not self.hurry:
            await event.wait()

    async def hand_back(self, delivery: Delivery, tried: bool) -> None:  # noqa: FBT001 - a callback
        if tried or delivery.lost or delivery in self.waiting or delivery in self.handling:
            self.wrong.append("it went back, and was not just waiting")
        self.accounted.add(delivery)

    def source(self, delivery: Delivery) -> Ahead:
        """Return the subscription that gave `delivery`."""
        return next(each for each in self.subscriptions if delivery in each.given)

    def _see_it_released(self, given: list[Delivery]) -> None:
        held = [each for each in given if not each.lost]
        if not (self.abandoned or self.accounted.issuperset(held)):
            self.wrong.append("it went back without a word")

    def _see_it_begin(self, delivery: Delivery) -> None:
        prefetches = [each.prefetch for each in self.subscriptions if not each.released]
        if len(self.waiting) + len(self.handling) >= max(prefetches):
            self.wrong.append("more are worked on than a subscription gives")
        if self.receiver.ending:
            self.wrong.append("it begins while all goes back")
        source = self.source(delivery)
        formers = self.subscriptions[: self.subscriptions.index(source)]
        if not all(former.quiet or former.taken_away or former.released for former in formers):
            self.wrong.append("it begins before what the former subscription had")
        place = source.given.index(delivery)
        if place < source.begun:
            self.wrong.append("it overtook another one")
        source.begun = place
        self.waiting[delivery] = asyncio.Event()


class ReceiverMachine(RuleBasedStateMachine):
    """All that can happen to a receiver, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.end = ""

    @initialize(
        steps=st.integers(0, 3),
        prefetch=st.integers(1, MOST),
        end=st.sampled_from(["all is handled", "stopped", "cancelled"]),
    )
    def start(self, steps: int, prefetch: int, end: str) -> None:
        self.end = end
        self.loop.run(self._start(steps, prefetch))

    async def _start(self, steps: int, prefetch: int) -> None:
        self.broker = InMemoryBroker()
        await self.broker.__aenter__()
        await self.broker.create_queue("q")
        self.worker = worker = Worker(self.broker, steps=steps)
        settler = SimpleNamespace(is_settling=lambda _delivery: False)
        context: Any = SimpleNamespace(
            broker=worker,
            settler=settler,
            contact=BrokerContact("q"),
            survived=SurvivedReturns(),
            stopping=worker.stopping,
            shutdown_timeout=30,
        )
        worker.receiver = Receiver(
            context,
            "q",
            prefetch=prefetch,
            work=worker.take,
            hand_back=worker.hand_back,
            ready=worker.ready,
            unseen_too=True,
        )
        for number in range(PUBLISHED):
            await self.broker.publish("q", Message(body=b"%d" % number))
        self.running = asyncio.ensure_future(worker.receiver.run())

    def go_on(self, then: float) -> None:
        if isinstance(then, float):
            self.loop.run(asyncio.sleep(then))
        else:
            for _ in range(then):
                self.loop.step()

    @rule(then=THEN)
    def wait(self, then: float) -> None:
        self.go_on(then)

    @rule(begin=st.booleans(), first=st.integers(0, MOST), count=st.integers(1, 3), then=THEN)
    def work(self, first: int, count: int, then: float, *, begin: bool) -> None:
        """Let some begin that wait for their turn, or some end whose handler runs."""
        held = self.worker.waiting if begin else self.worker.handling
        for event in list(held.values())[first:][:count] or list(held.values())[:1]:
            event.set()
        self.go_on(then)

    @rule(then=THEN)
    def work_on_all(self, then: float) -> None:
        self._set_all()
        self.go_on(then)

    @rule(prefetch=st.integers(1, MOST), then=THEN)
    def resize(self, prefetch: int, then: float) -> None:
        self.worker.receiver.resize(prefetch)
        self.go_on(then)

    @rule(away=st.sampled_from([0.0, 0.1, 1.0]), then=THEN)
    def leave(self, away: float, then: float) -> None:
        self.worker.present.clear()
        self.loop.call_later(away, self.worker.present.set)
        self.worker.receiver.leave()
        self.go_on(then)

    @rule(refusals=st.integers(1, 2))
    def refuse_subscriptions(self, refusals: int) -> None:
        self.worker.refusals = refusals

    @rule(choice=st.integers(-1, 1), then=THEN)
    def lose(self, choice: int, then: float) -> None:
        for subscription in self.open if choice < 0 else self.open[choice:][:1]:
            subscription.take_away()
        self.go_on(then)

    @property
    def open(self) -> list[Ahead]:
        return [s for s in self.worker.subscriptions if not s.released and not s.taken_away]

    @invariant()
    def no_handler_is_cut_off_by_anything_but_a_loss(self) -> None:
        for delivery in self.worker.handling:
            assert not delivery.lost or self.worker.source(delivery).taken_away

    @invariant()
    def nothing_is_settled_twice_or_wrong(self) -> None:
        assert all(times == 1 for times in self.worker.settled.values())
        assert self.worker.wrong == []

    @invariant()
    def at_most_two_receive(self) -> None:
        assert len([s for s in self.open if not s.quiet]) <= 2

    def teardown(self) -> None:
        if not self.end:
            return
        if self.end == "all is handled":
            self._handle_all()
        if self.end == "cancelled":
            self.worker.abandoned = True
            self.running.cancel()
        self.worker.stopping.set()
        self._set_all()
        with contextlib.suppress(asyncio.CancelledError):
            self.loop.run(self.running)
        assert self.open == []
        assert not self.worker.waiting
        assert not self.worker.handling
        assert self.worker.wrong == []
        left = self.loop.run(self.broker.depth("q"))
        assert left + self.worker.settled.total() == PUBLISHED
        self.loop.run(asyncio.sleep(1))
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()

    def _set_all(self) -> None:
        for event in (*self.worker.waiting.values(), *self.worker.handling.values()):
            event.set()

    def _handle_all(self) -> None:
        """See that it goes on when nothing hinders it any more."""
        self.worker.hurry = True
        self.worker.refusals = 0
        self._set_all()
        self.loop.run(self.broker.until_holds("q", 0, within=300))
        self.loop.run(asyncio.sleep(30))
        [serving] = self.open
        assert serving.prefetch == self.worker.receiver.prefetch
        assert not serving.quiet
        assert len(self.worker.receiver._held) == 1


TestReceiver = ReceiverMachine.TestCase
TestReceiver.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
