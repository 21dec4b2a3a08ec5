"""The broker in memory keeps what parking relies on, and is convenient in tests."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message, Station, Topology, open_broker
from fusewire.errors import (
    BrokerError,
    DeliveryLostError,
    MoveRefusedError,
    QueueNotFoundError,
    SettingsError,
)
from fusewire.testing import FakeClock, InMemoryBroker
from fusewire.testing.conformance import BrokerConformance, Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fusewire.brokers import Broker

ORDERS = Topology("orders")


class TestConformance(BrokerConformance):
    @pytest.fixture
    def place(self) -> Place:
        address = InMemoryBroker().address
        return Place(open=lambda: InMemoryBroker(address), queue="orders")


@pytest.fixture
def fake_clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def broker(fake_clock: FakeClock) -> AsyncIterator[InMemoryBroker]:
    async with InMemoryBroker(clock=fake_clock) as broker:
        await broker.create_queue("orders")
        await broker.prepare(ORDERS)
        yield broker


class TestAddresses:
    async def test_brokers_of_one_address_share_their_queues(self, broker: InMemoryBroker) -> None:
        await broker.publish("orders", Message(body=b"order"))
        async with open_broker(broker.address) as other:
            assert isinstance(other, InMemoryBroker)
            assert await other.depth("orders") == 1
        async with InMemoryBroker() as stranger:
            with pytest.raises(QueueNotFoundError, match="orders"):
                await stranger.depth("orders")

    def test_an_address_is_a_scheme_and_a_name(self) -> None:
        assert InMemoryBroker("memory://Orders.1").address == "memory://Orders.1"
        assert repr(InMemoryBroker("MEMORY://a")) == "InMemoryBroker('memory://a')"

    @pytest.mark.parametrize("address", ["", "orders", "memory://", "memory://a/b", "memory:///a"])
    def test_any_other_address_is_refused(self, address: str) -> None:
        with pytest.raises(SettingsError, match="memory:// and a name"):
            InMemoryBroker(address)

    def test_a_refused_address_does_not_show_its_password(self) -> None:
        with pytest.raises(SettingsError) as refused:
            open_broker("memory://shop:secret@host")
        assert "secret" not in str(refused.value)

    async def test_clear_forgets_all_and_ends_those_who_receive(
        self, broker: InMemoryBroker
    ) -> None:
        await broker.publish("orders", Message(body=b"1"))
        await broker.publish("orders", Message(body=b"2"), delay=5)
        await broker.mark("orders", "mark")
        subscription = await broker.subscribe("orders", prefetch=1)
        delivery = await subscription.receive()
        waiting = asyncio.create_task(subscription.receive())
        await broker.depth("orders")  # long enough for the task to wait

        broker.clear()

        assert delivery.lost
        with pytest.raises(DeliveryLostError, match="given back"):
            await delivery.done()
        with pytest.raises(QueueNotFoundError, match="orders"):
            await asyncio.wait_for(waiting, 10)
        assert not await broker.is_marked("orders", "mark")
        await broker.create_queue("orders")
        assert await broker.depth("orders") == 0
        with pytest.raises(QueueNotFoundError, match="orders"):
            await subscription.receive()
        await subscription.release()


class TestClocks:
    async def test_a_delay_is_over_exactly_when_the_clock_says_so(
        self, broker: InMemoryBroker, fake_clock: FakeClock
    ) -> None:
        await broker.publish("orders", Message(body=b"late"), delay=3600)
        await broker.publish("orders", Message(body=b"soon"), delay=60)
        fake_clock.advance(59.9)
        assert await broker.depth(ORDERS.delayed) == 2
        fake_clock.advance(0.2)
        assert [message.body for message in await broker.peek("orders", limit=9)] == [b"soon"]
        await broker.publish("orders", Message(body=b"now"))
        fake_clock.advance(3600)
        bodies = [message.body for message in await broker.peek("orders", limit=9)]
        assert bodies == [b"soon", b"now", b"late"]
        assert await broker.depth(ORDERS.delayed) == 0

    async def test_one_who_waits_notices_that_the_clock_was_moved(
        self, broker: InMemoryBroker, fake_clock: FakeClock
    ) -> None:
        await broker.publish("orders", Message(body=b"late"), delay=3600)
        waiting = asyncio.create_task((await broker.subscribe("orders", prefetch=1)).receive())
        await broker.depth("orders")  # long enough for the task to wait
        fake_clock.advance(3600)
        delivery = await asyncio.wait_for(waiting, 10)
        assert delivery.message.body == b"late"

    async def test_an_address_has_one_clock_until_it_is_cleared(
        self, broker: InMemoryBroker, fake_clock: FakeClock
    ) -> None:
        InMemoryBroker(broker.address)
        InMemoryBroker(broker.address, clock=fake_clock)
        with pytest.raises(SettingsError, match="clock"):
            InMemoryBroker(broker.address, clock=FakeClock())
        broker.clear()
        InMemoryBroker(broker.address, clock=FakeClock())


class TestWaiting:
    async def test_what_is_in_flight_is_still_held(self, broker: InMemoryBroker) -> None:
        await broker.publish("orders", Message(body=b""))
        delivery = await (await broker.subscribe("orders", prefetch=1)).receive()
        await broker.until_holds("orders", 1)
        waiting = asyncio.create_task(broker.until_holds("orders", 0))
        await delivery.done()
        await asyncio.wait_for(waiting, 10)

    async def test_it_waits_until_a_station_holds_as_many(self, broker: InMemoryBroker) -> None:
        async with InMemoryBroker(broker.address) as other:
            waiting = asyncio.create_task(broker.until_holds("later", 2))
            await other.create_queue("later")
            for _ in range(2):
                await other.publish("later", Message(body=b""))
            await asyncio.wait_for(waiting, 10)

    async def test_what_does_not_come_to_be_is_said(self, broker: InMemoryBroker) -> None:
        with pytest.raises(TimeoutError, match=r"orders.dead did not hold 3 .* 0.01 s: it holds 0"):
            await broker.until_holds(ORDERS.dead, 3, within=0.01)
        with pytest.raises(TimeoutError, match="no such station"):
            await broker.until_holds("missing", 0, within=0.01)


class TestMessages:
    async def test_what_is_stored_is_a_copy(self, broker: InMemoryBroker) -> None:
        table: dict[str, Any] = {"list": [1]}
        stored = Message(body=b"", headers=table, unreadable="set on reading only")
        await broker.publish("orders", stored)
        table["list"].append(2)
        [seen] = await broker.peek("orders", limit=1)
        assert seen == Message(body=b"", headers={"list": [1]})
        seen.headers["list"].append(3)  # type: ignore[union-attr]
        assert await broker.peek("orders", limit=1) == [Message(body=b"", headers={"list": [1]})]

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            ((1, 2), TypeError),
            ({"deep": [{1: "number"}]}, TypeError),
            ([object()], TypeError),
            ("\udcff", MoveRefusedError),
        ],
    )
    async def test_what_no_broker_stores_is_refused_by_name(
        self, broker: InMemoryBroker, value: Any, error: type[Exception]
    ) -> None:
        await broker.publish("orders", Message(body=b"right"))
        subscription = await broker.subscribe("orders", prefetch=1)
        delivery = await subscription.receive()
        for store in (broker.publish, delivery.move):
            with pytest.raises(error, match="'odd'"):
                await store("orders", Message(body=b"", headers={"odd": value}))
        assert await broker.depth("orders") == 0
        await delivery.move(ORDERS.dead, delivery.message)

    async def test_a_body_is_bytes_and_texts_can_be_encoded(self, broker: InMemoryBroker) -> None:
        with pytest.raises(TypeError, match="body must be bytes"):
            await broker.publish("orders", Message(body="text"))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="priority must be a int"):
            await broker.publish("orders", Message(body=b"", priority="7"))  # type: ignore[arg-type]
        with pytest.raises(MoveRefusedError, match="correlation_id"):
            await broker.publish("orders", Message(body=b"", correlation_id="\udcff"))


class TestRules:
    @pytest.mark.parametrize(
        "use",
        [
            lambda broker: broker.create_queue("orders"),
            lambda broker: broker.publish("orders", Message(body=b"")),
            lambda broker: broker.subscribe("orders", prefetch=1),
        ],
    )
    async def test_a_broker_is_entered_before_it_is_used(
        self, use: Callable[[Broker], Awaitable[object]]
    ) -> None:
        broker = InMemoryBroker()
        with pytest.raises(BrokerError, match="not entered"):
            await use(broker)
        async with broker:
            with pytest.raises(BrokerError, match="entered already"):
                await broker.__aenter__()
        async with broker:
            pass
        with pytest.raises(BrokerError, match="not entered"):
            await use(broker)

    async def test_a_delivery_is_settled_once(self, broker: InMemoryBroker) -> None:
        await broker.publish("orders", Message(body=b""))
        delivery = await (await broker.subscribe("orders", prefetch=1)).receive()
        await delivery.done()
        assert not delivery.lost
        with pytest.raises(DeliveryLostError, match="settled already"):
            await delivery.move(ORDERS.dead, delivery.message)
        assert await broker.depth(ORDERS.dead) == 0

    async def test_a_station_is_reached_by_its_text(self, broker: InMemoryBroker) -> None:
        await broker.publish("orders.dead", Message(body=b""))
        assert await broker.depth(ORDERS.dead) == 1

    async def test_nobody_receives_what_is_delayed(self, broker: InMemoryBroker) -> None:
        with pytest.raises(ValueError, match="looked at"):
            await broker.subscribe(ORDERS.delayed, prefetch=1)
        with pytest.raises(ValueError, match="prefetch"):
            await broker.subscribe("orders", prefetch=0)

    async def test_a_source_takes_a_delay_when_it_is_prepared(self, broker: InMemoryBroker) -> None:
        await broker.create_queue("bare")
        with pytest.raises(MoveRefusedError, match="prepare"):
            await broker.publish("bare", Message(body=b""), delay=1)
        await broker.prepare(Topology("bare"))
        await broker.publish("bare", Message(body=b""), delay=1)

    def test_loops_of_several_threads_share_an_address(self) -> None:
        address = InMemoryBroker().address
        received: list[bytes] = []
        ready = threading.Event()

        async def receive() -> None:
            async with InMemoryBroker(address) as broker:
                await broker.create_queue("orders")
                subscription = await broker.subscribe("orders", prefetch=1)
                ready.set()
                for _ in range(100):
                    delivery = await asyncio.wait_for(subscription.receive(), 10)
                    received.append(delivery.message.body)
                    await delivery.done()

        async def publish() -> None:
            async with InMemoryBroker(address) as broker:
                for number in range(100):
                    await broker.publish(Station("orders"), Message(body=b"%d" % number))
                await broker.until_holds("orders", 0)

        thread = threading.Thread(target=asyncio.run, args=(receive(),))
        thread.start()
        assert ready.wait(10)
        asyncio.run(publish())
        thread.join(10)
        assert received == [b"%d" % number for number in range(100)]
