"""Calls are found by their operation ids, and cancelled while they wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from fusewire.brokers import FoundMessage, Message, SQLiteBroker, Station, Topology, open_broker
from fusewire.errors import FusewireError, SettingsError
from fusewire.forwarding import (
    CallPlace,
    CancelKind,
    Cancellation,
    FoundCall,
    Outcome,
    ParkedCalls,
)
from fusewire.testing import InMemoryBroker
from tests.forwarding.asking import METHODS, POLICY, REMOVED, opaque, storing
from tests.forwarding.conftest import CHARGE
from tests.forwarding.encrypting import RIGHT
from tests.forwarding.shop import aio_shop, trip
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fusewire.breaker import BreakerRegistry
    from tests.forwarding.conftest import PaymentsServer


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


@pytest.fixture(params=["sqlite", "memory"])
def searched(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A broker that can look up a message."""
    if request.param == "memory":
        return InMemoryBroker().address
    return f"sqlite:///{tmp_path}/broker.db"


async def test_a_call_is_found_where_it_waits_and_nowhere_once_it_has_ended(
    searched: str, queue_name: str
) -> None:
    async with storing(searched, queue_name) as calls:
        await calls.submit(CHARGE, b"a", operation_id="op-a")
        assert await calls.find(CHARGE, "op-a") == FoundCall(place=CallPlace.WAITING)
        assert await calls.find(CHARGE, "op-b") == FoundCall(place=CallPlace.NOT_HERE)
        other = "/shop.Payments/Refund"
        assert await calls.find(other, "op-a") == FoundCall(place=CallPlace.NOT_HERE)
        async with open_broker(searched) as broker:
            subscription = await broker.subscribe(calls.topology.parked("other"), prefetch=1)
            delivery = await subscription.receive()
            assert await calls.find(CHARGE, "op-a") == FoundCall(place=CallPlace.IN_FLIGHT)
            await delivery.move(calls.topology.dead, delivery.message)
            assert await calls.find(CHARGE, "op-a") == FoundCall(place=CallPlace.DEAD)
            await subscription.release()


async def test_a_call_that_waits_for_its_next_attempt_is_waiting(
    searched: str, queue_name: str
) -> None:
    async with storing(searched, queue_name) as calls:
        await calls.submit(CHARGE, b"a", operation_id="op-a")
        async with open_broker(searched) as broker:
            await broker.prepare(calls.topology)
            subscription = await broker.subscribe(calls.topology.parked("other"), prefetch=1)
            delivery = await subscription.receive()
            await delivery.move(Station(queue_name), delivery.message, delay=600)
            assert await calls.find(CHARGE, "op-a") == FoundCall(place=CallPlace.WAITING)
            assert await calls.cancel(CHARGE, "op-a") == REMOVED


async def test_an_encrypted_call_is_found_and_cancelled_too(file: str, queue_name: str) -> None:
    async with storing(file, queue_name, encryption=RIGHT) as calls:
        await calls.submit(CHARGE, b"a", operation_id="op-a")
        assert (await calls.find(CHARGE, "op-a")).place is CallPlace.WAITING
        assert await calls.cancel(CHARGE, "op-a") == REMOVED


async def test_what_a_broker_cannot_know_is_said_and_raises_nothing(
    tmp_path: Path, queue_name: str
) -> None:
    async with opaque(tmp_path, queue_name) as calls:
        await calls.submit(CHARGE, b"a", operation_id="op-a")
        found = await calls.find(CHARGE, "op-a")
        assert (found.place, found.server) == (CallPlace.UNKNOWN, None)
        assert found.why == "this broker cannot look up a message by its id"
        cancelled = await calls.cancel(CHARGE, "op-a")
        assert (cancelled.kind, cancelled.why) == (CancelKind.NOT_CANCELLED, found.why)


async def test_a_call_that_was_never_sent_is_removed_and_not_made(
    searched: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(
        searched, queue_name, server, registry, forward=False, policy=POLICY
    ) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        await shop.charge("b", "op-b")
        assert await shop.calls.cancel(CHARGE, "op-a") == REMOVED
        assert await shop.calls.cancel(CHARGE, "op-a") == Cancellation(
            kind=CancelKind.NOT_CANCELLED, place=CallPlace.NOT_HERE
        )
        registry.get(CHARGE).reset()
        shop.forward()
        await until(lambda: shop.happened("replayed") == ["op-b"])
    assert server.effects == {"op-b": b"b"}


async def test_of_a_call_that_is_removed_the_outcome_comes_home(
    searched: str, queue_name: str
) -> None:
    outcomes: list[Outcome] = []
    async with storing(searched, queue_name, on_outcome=outcomes.append) as calls:
        await calls.submit(CHARGE, b"a", operation_id="op-a")
        assert await calls.cancel(CHARGE, "op-a") == REMOVED
        await until(lambda: outcomes)
    [outcome] = outcomes
    assert (outcome.operation_id, outcome.kind, outcome.final) == ("op-a", "cancelled", True)
    assert (outcome.method, outcome.request) == (CHARGE, b"a")


async def test_a_call_whose_outcome_cannot_be_stored_is_not_removed(
    file: str, queue_name: str
) -> None:
    async with storing(file, queue_name, outcomes=True) as calls:
        await calls.submit(CHARGE, b"a", operation_id="op-a")
        async with open_broker(file) as broker:
            assert isinstance(broker, SQLiteBroker)
            await broker._run(lambda store: store.delete_queue(f"{queue_name}.replies"))
        cancelled = await calls.cancel(CHARGE, "op-a")
        assert cancelled.kind is CancelKind.NOT_CANCELLED
        assert f"{queue_name}.replies" in cancelled.why
        assert (await calls.find(CHARGE, "op-a")).place is CallPlace.WAITING


async def test_a_call_in_flight_is_never_removed(searched: str, queue_name: str) -> None:
    async with storing(searched, queue_name) as calls, open_broker(searched) as broker:
        await calls.submit(CHARGE, b"a", operation_id="op-a")
        subscription = await broker.subscribe(calls.topology.parked("other"), prefetch=1)
        delivery = await subscription.receive()
        assert await calls.cancel(CHARGE, "op-a") == Cancellation(
            kind=CancelKind.NOT_CANCELLED, place=CallPlace.IN_FLIGHT
        )
        assert not delivery.lost
        await subscription.release()
        # It was somebody's, who may have sent it.
        cancelled = await calls.cancel(CHARGE, "op-a")
        assert (cancelled.kind, cancelled.place) == (CancelKind.NOT_CANCELLED, CallPlace.WAITING)
        assert "may have been sent" in cancelled.why


async def test_a_call_that_moves_while_it_is_looked_at_is_left(
    tmp_path: Path, queue_name: str
) -> None:
    class Moving(SQLiteBroker):
        tries = 0

        async def withdraw(
            self,
            found: Sequence[FoundMessage],
            instead: tuple[Station | str, Message] | None = None,
        ) -> bool:
            self.tries += 1
            return False

    async with (
        Moving(tmp_path / "broker.db") as broker,
        ParkedCalls(broker, queue=queue_name, methods=METHODS) as calls,
    ):
        await calls.submit(CHARGE, b"a", operation_id="op-a")
        cancelled = await calls.cancel(CHARGE, "op-a")
    assert (cancelled.kind, cancelled.place) == (CancelKind.NOT_CANCELLED, CallPlace.WAITING)
    assert "try again" in cancelled.why
    assert broker.tries == 3


async def test_a_broker_that_does_not_answer_in_time_is_not_waited_for(
    tmp_path: Path, queue_name: str
) -> None:
    class Silent(SQLiteBroker):
        async def find(self, topology: Topology, message_id: str) -> list[FoundMessage]:
            await asyncio.Event().wait()
            raise AssertionError("the event is never set")

    async with (
        Silent(tmp_path / "broker.db") as broker,
        ParkedCalls(broker, queue=queue_name, methods=METHODS, park_timeout=0.05) as calls,
    ):
        found = await calls.find(CHARGE, "op-a")
        assert (found.place, found.why) == (
            CallPlace.UNKNOWN,
            "the broker does not answer within park_timeout=0.05 s",
        )
        assert (await calls.cancel(CHARGE, "op-a")).kind is CancelKind.UNKNOWN


async def test_arguments_that_cannot_be_right_are_refused(file: str, queue_name: str) -> None:
    async with storing(file, queue_name) as calls:
        with pytest.raises(SettingsError, match="method must be a path"):
            await calls.find("Charge", "op-a")
        with pytest.raises(SettingsError, match="operation_id must be"):
            await calls.cancel(CHARGE, "")
        with pytest.raises(SettingsError, match="channel must be"):
            await calls.cancel(CHARGE, "op-a", channel="localhost:1")  # type: ignore[arg-type] # refused
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            with pytest.raises(SettingsError, match=r"channel must be a grpc\.Channel"):
                calls.find_sync(CHARGE, "op-a", channel=channel)  # type: ignore[arg-type] # refused
        with pytest.raises(FusewireError, match="without _sync"):
            calls.find_sync(CHARGE, "op-a")
    with pytest.raises(FusewireError, match="not entered"):
        await calls.find(CHARGE, "op-a")
