"""How a store of calls and its forwarder stand, on asyncio and on sync channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.errors import BrokerUnavailableError, FusewireError
from fusewire.forwarding import ParkedCalls
from fusewire.parking import _status_watch as watch_module
from tests.forwarding.conftest import CHARGE, PaymentsServer
from tests.forwarding.shop import aio_shop, recover, sync_shop, trip
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_BEAT", 0.01)
    monkeypatch.setattr(watch_module, "_INTERVAL", 0.02)


def ready(calls: ParkedCalls) -> int | None:
    depth = calls.status().lanes["other"].ready
    return None if depth is None else depth.ready


def test_nothing_is_known_of_a_store_that_was_not_entered() -> None:
    status = ParkedCalls("sqlite:///unused.db", queue="calls").status()
    assert (status.queue, status.running, status.connected) == ("calls", False, False)
    assert status.lanes["other"].ready is None


async def test_a_store_without_a_forwarder_knows_what_waits(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        assert shop.calls.status().connected
        trip(registry)
        await shop.charge("a")
        await until(lambda: ready(shop.calls) == 1)
        status = shop.calls.status()
        assert (status.running, status.subscribed, status.in_flight) == (False, False, 0)
        assert status.loop_turned_at is not None
    assert not shop.calls.status().connected


async def test_a_forwarder_shows_its_consumer(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry) as shop:
        await until(lambda: shop.calls.status().subscribed)
        trip(registry)
        await shop.charge("a")
        # What waits there is not known before it is received, so it waits in flight.
        await until(lambda: shop.calls.status().lanes["other"].waits_for == (CHARGE,))
        assert shop.calls.status().lanes["other"].in_flight == 1
        assert shop.forwarding is not None
        assert shop.forwarding.status().running
        assert shop.calls.status().running
        recover(registry)
        await until(lambda: len(shop.happened("replayed")) == 1)
        assert shop.calls.status().last_delivery_at is not None
        await shop.forwarding.end()
        status = shop.calls.status()
        assert (status.running, status.connected) == (False, True)  # it can park still


async def test_the_lane_of_a_store_shows_which_circuit_is_open(
    address: str, queue_name: str, registry: BreakerRegistry
) -> None:
    async with ParkedCalls(
        address, queue=queue_name, registry=registry, lanes={"money": [CHARGE]}
    ) as calls:
        assert calls.status().lanes["money"].waits_for == ()
        trip(registry)
        assert calls.status().lanes["money"].waits_for == (CHARGE,)


def test_a_sync_user_reads_it_from_its_own_thread(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    with sync_shop(address, queue_name, server, registry) as (calls, charge, _):
        until_sync(lambda: calls.status().subscribed)
        assert charge(b"a", timeout=30).startswith(b"charged:")
        until_sync(lambda: ready(calls) == 0)
        assert calls.status().connected
    assert not calls.status().connected


async def test_a_call_that_could_not_be_stored_shows_that_the_broker_is_away(
    address: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise BrokerUnavailableError("away")

    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        with monkeypatch.context() as patch:
            patch.setattr(type(shop.calls._store.broker), "publish", away)
            patch.setattr(type(shop.calls._store.broker), "depth", away)
            with pytest.raises(FusewireError):
                await shop.charge("a")
            assert not shop.calls.status().connected
            assert shop.calls.status().moves_refused["unavailable"] == 1
        await shop.charge("b")
        assert shop.calls.status().connected
