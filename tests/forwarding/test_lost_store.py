"""A call is promised only where it is found, also when the store's file goes away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Message
from fusewire.brokers.sqlite._store import Store
from fusewire.errors import CircuitOpenError, UnconfirmedError
from fusewire.forwarding import OPERATION_ID_METADATA, PARKED_METADATA, ParkedCalls
from fusewire.forwarding._call import StoredCall
from fusewire.forwarding._store import Entry
from tests.forwarding.shop import aio_shop, recover, trip
from tests.support.payments import CHARGE
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from fusewire.breaker import BreakerRegistry
    from fusewire.brokers import Station
    from tests.forwarding.conftest import PaymentsServer


def delete(file: Path) -> None:
    for name in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        name.unlink()


@pytest.mark.parametrize("forward", [False, True], ids=["parked only", "forwarded"])
async def test_what_is_promised_after_the_file_was_deleted_is_made(
    forward: object,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    tmp_path: Path,
) -> None:
    file = tmp_path / "calls.db"
    server.stop()
    async with aio_shop(
        f"sqlite:///{file}", queue_name, server, registry, forward=bool(forward)
    ) as shop:
        trip(registry)
        delete(file)
        assert await shop.charge("a", "op-a") == b"pending:op-a"

    server.start()
    recover(registry)
    async with aio_shop(f"sqlite:///{file}", queue_name, server, registry) as shop:
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert server.effects == {"op-a": b"a"}


async def test_a_forwarder_goes_on_with_what_comes_after_its_file_was_deleted(
    queue_name: str, server: PaymentsServer, registry: BreakerRegistry, tmp_path: Path
) -> None:
    file = tmp_path / "calls.db"
    server.stop()
    async with aio_shop(f"sqlite:///{file}", queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        delete(file)
        await shop.charge("b", "op-b")
        server.start()
        recover(registry)
        await until(lambda: "op-b" in shop.happened("replayed"))


async def test_a_call_that_is_stored_in_the_moment_of_the_loss_is_not_promised(
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "calls.db"
    publish = Store.publish

    def publish_and_lose(self: Store, to: Station, message: Message, delay: float) -> None:
        publish(self, to, message, delay)
        delete(file)

    async with aio_shop(f"sqlite:///{file}", queue_name, server, registry, forward=False) as shop:
        trip(registry)
        monkeypatch.setattr(Store, "publish", publish_and_lose)
        with pytest.raises(CircuitOpenError) as caught:
            await shop.charge("a", "op-a")

    trailing = dict(tuple(caught.value.trailing_metadata()))  # type: ignore[attr-defined]
    assert trailing[OPERATION_ID_METADATA] == "op-a"
    assert trailing[PARKED_METADATA] == "unknown"


class _Cancelling(StoredCall):
    """A call whose storing something cancels."""

    def message(self, *_: object) -> Message:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return Message(body=b"")


@pytest.mark.parametrize("channel", ["sync", "of another event loop"])
def test_a_call_whose_storing_something_else_cancels_may_or_may_not_be_stored(
    queue_name: str, registry: BreakerRegistry, tmp_path: Path, channel: str
) -> None:
    call = _Cancelling(operation_id="op-a", method=CHARGE, request=b"")
    with ParkedCalls(tmp_path / "calls.db", queue=queue_name, registry=registry) as calls:
        store = calls._store
        store._publish_from_thread = None  # as on RabbitMQ: SQLite has no task to cancel

        def park() -> object:
            if channel == "sync":
                return store.store_threadsafe(Entry(call, CHARGE))
            return asyncio.run(store.store(Entry(call, CHARGE)))

        with pytest.raises(UnconfirmedError, match="may or may not be parked"):
            park()
