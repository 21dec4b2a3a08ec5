"""A handler that is cancelled while its database is asked: that goes on to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message
from fusewire.inbox import aio_once
from fusewire.parking import MessageView
from tests.support.idempotent_places import SYNC_AND_AIO

if TYPE_CHECKING:
    from tests.inbox.conftest import Shop

pytestmark = pytest.mark.parametrize("place", SYNC_AND_AIO[1:], ids=str)


def view() -> MessageView:
    return MessageView(Message(body=b"order", message_id="a"), redelivered=False, headers={})


@pytest.mark.parametrize(("step", "committed"), [("commit", True), ("rollback", False)])
async def test_a_commit_and_a_rollback_go_on_to_their_end(
    shop: Shop, step: str, *, committed: bool
) -> None:
    wrapped = await aio_once(shop.store, shop.handler(), consumer="orders")
    began, go_on = asyncio.Event(), asyncio.Event()
    begin_transaction = shop.store.begin_transaction

    async def slow(wait: float) -> Any:
        transaction = await begin_transaction(wait)
        do = getattr(transaction, step)

        async def wait_and_do(*last: Any) -> Any:
            began.set()
            await go_on.wait()
            return await do(*last)

        setattr(transaction, step, wait_and_do)
        return transaction

    shop.store.begin_transaction = slow
    if not committed:
        shop.behave = lambda _: 1 / 0
    handling = asyncio.create_task(wrapped(view()))
    await began.wait()
    for _ in range(2):
        handling.cancel()
        await asyncio.sleep(0)
    assert not handling.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert shop.effects("order") == shop.records == int(committed)
    shop.store.begin_transaction = begin_transaction
    shop.behave = lambda _: None
    await wrapped(view())
    assert shop.runs["order"] == (1 if committed else 2)
    assert shop.effects("order") == 1


async def test_a_claim_that_is_cancelled_while_it_begins_leaves_no_transaction_open(
    shop: Shop,
) -> None:
    wrapped = await aio_once(shop.store, shop.handler(), consumer="orders")
    begin_transaction = shop.store.begin_transaction
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(wait: float) -> Any:
        began.set()
        await go_on.wait()
        return await begin_transaction(wait)

    shop.store.begin_transaction = slow
    handling = asyncio.create_task(wrapped(view()))
    await began.wait()
    handling.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await handling
    shop.store.begin_transaction = begin_transaction
    await shop.change(f"DELETE FROM {shop.database.keys}")  # noqa: S608 - ours
    await wrapped(view())
    assert shop.runs["order"] == 1
