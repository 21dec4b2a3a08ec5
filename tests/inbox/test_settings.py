"""What `once` accepts, and what it refuses when it is called."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message
from fusewire.errors import SettingsError
from fusewire.idempotency import MissingTableError, SQLiteStore
from fusewire.inbox import aio_once, once
from fusewire.parking import HandlerNotRunError, MessageView
from tests.support.idempotent_places import SYNC_AND_AIO, finished

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.inbox.conftest import Shop


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "orders.db") as made:
        with closing(sqlite3.connect(tmp_path / "orders.db")) as database:
            database.executescript(made.ddl)
        yield made


def view(operation: str) -> MessageView:
    message = Message(body=b"order", message_id=operation)
    return MessageView(message, redelivered=False, headers={})


def handle(_: object) -> None:
    pass


async def aio_handle(_: object) -> None:
    pass


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 201, 7], ids=repr)
def test_a_name_of_a_consumer_fits_into_the_index(store: SQLiteStore, name: Any) -> None:
    with pytest.raises(SettingsError, match="consumer must be a non-empty string of at most 200"):
        once(store, handle, consumer=name)


@pytest.mark.parametrize(
    ("setting", "value"), [("keep", 60), ("wait", 0), ("sweep", 0), ("keep", None)]
)
def test_figures_are_checked(store: SQLiteStore, setting: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"{setting} must be"):
        once(store, handle, consumer="orders", **{setting: value})


def test_a_coroutine_function_needs_a_store_for_asyncio(store: SQLiteStore) -> None:
    with pytest.raises(SettingsError, match="handler must be a plain function"):
        once(store, aio_handle, consumer="orders")


@pytest.mark.parametrize("place", SYNC_AND_AIO[1:], ids=str)
async def test_a_plain_function_needs_a_store_for_threads(shop: Shop) -> None:
    with pytest.raises(SettingsError, match="handler must be a coroutine function"):
        await aio_once(shop.store, handle, consumer="orders")  # type: ignore[arg-type] # the mistake
    with pytest.raises(SettingsError, match="store must be a SyncStore"):
        once(shop.store, handle, consumer="orders")


@pytest.mark.parametrize("place", SYNC_AND_AIO, ids=str)
async def test_a_table_that_is_absent_is_an_error_at_the_start(shop: Shop) -> None:
    shop.database.execute(f"DROP TABLE {shop.database.keys}")
    with pytest.raises(MissingTableError, match="CREATE TABLE"):
        await finished(
            (aio_once if shop.place.aio else once)(shop.store, shop.handler(), consumer="orders")
        )


@pytest.mark.parametrize("place", SYNC_AND_AIO, ids=str)
async def test_a_handler_that_does_not_ask_for_its_transaction_is_warned_of_once(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    wrapped = await finished(
        aio_once(shop.store, aio_handle, consumer="orders")
        if shop.place.aio
        else once(shop.store, handle, consumer="orders")
    )
    for operation in ("a", "b"):
        await finished(wrapped(view(operation)))
    assert caplog.text.count("has not asked for the store's current transaction") == 1
    assert shop.records == 2


@pytest.mark.parametrize("place", SYNC_AND_AIO, ids=str)
async def test_work_that_does_not_end_with_its_handler_is_refused(shop: Shop) -> None:
    async def work() -> None:
        pass

    async def aio(_: object) -> Any:
        return work()

    def sync(_: object) -> Any:
        return work()

    wrapped = await finished(
        aio_once(shop.store, aio, consumer="orders")
        if shop.place.aio
        else once(shop.store, sync, consumer="orders")
    )
    with pytest.raises(HandlerNotRunError, match="which has not ended"):
        await finished(wrapped(view("a")))
    assert shop.records == 0


def test_the_wrapped_handler_is_called_as_it_was(store: SQLiteStore) -> None:
    assert once(store, handle, consumer="orders").__qualname__ == "handle"
