"""Rows of the inbox's truth table: what a handler, or the database, does to its transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.idempotency._sql import Dialect
from tests.inbox.conftest import first_time
from tests.support.idempotent_places import PLACES

if TYPE_CHECKING:
    from tests.inbox.conftest import Shop

_NAMES = {place.name: place for place in PLACES}


async def test_a_handler_that_commits_in_sql_is_remembered_all_the_same(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.behave = lambda _: shop.execute("COMMIT")
    await shop.send("order")
    async with shop.consumer():
        await shop.ends("handled")
        assert "has ended the transaction itself" in caplog.text
        await shop.send("order")
        await shop.ends("handled", 2)
    assert shop.runs["order"] == 1
    assert shop.effects("order") == 1


async def test_a_handler_that_rolls_back_in_sql_has_failed(shop: Shop) -> None:
    shop.behave = first_time(shop, lambda _: shop.execute("ROLLBACK"))
    await shop.send("order")
    async with shop.consumer():
        (failed,) = await shop.ends("delayed")
        await shop.ends("handled")
    assert failed.error_type == "fusewire.idempotency.NoTransactionError"
    assert shop.runs["order"] == 2
    assert shop.effects("order") == 1


async def test_a_handler_that_commits_in_sql_and_fails_leaves_a_doubt(shop: Shop) -> None:
    def act(_: object) -> None:
        shop.execute("COMMIT")
        raise ValueError("a bug")

    async def aio_act(_: object) -> None:
        await shop.execute("COMMIT")
        raise ValueError("a bug")

    shop.behave = aio_act if shop.place.aio else act
    await shop.send("order")
    async with shop.consumer():
        (dead,) = await shop.ends("dead")
    assert dead.reason == "in-doubt"
    assert shop.runs["order"] == 1
    assert shop.effects("order") == 1


async def test_a_database_that_cannot_be_asked_is_a_failed_attempt_and_nothing_runs(
    shop: Shop,
) -> None:
    keys = shop.database.keys
    async with shop.consumer():
        await shop.change(f'ALTER TABLE {keys} RENAME TO "elsewhere"')
        await shop.send("order")
        (failed, *_) = await shop.ends("delayed")
        assert failed.attempts == 1
        assert shop.runs["order"] == 0
        schema = f'"{shop.database.schema}".' if shop.database.schema else ""
        await shop.change(f'ALTER TABLE {schema}"elsewhere" RENAME TO "fusewire_idempotency"')
        await shop.ends("handled")
    assert shop.effects("order") == 1


@pytest.mark.parametrize(
    "place", [place for place in PLACES if place.kind is Dialect.POSTGRESQL], ids=str
)
async def test_a_connection_that_is_lost_is_a_failed_attempt(shop: Shop) -> None:
    shop.behave = first_time(
        shop, lambda _: shop.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    )
    await shop.send("order")
    async with shop.consumer():
        await shop.ends("delayed")
        await shop.ends("handled")
    assert shop.runs["order"] == 2
    assert shop.effects("order") == 1


async def test_a_commit_whose_answer_is_lost_is_a_failed_attempt_that_the_record_decides(
    shop: Shop,
) -> None:
    async with shop.consumer():
        lose_the_answer_of_the_next_commit(shop)
        await shop.send("order")
        await shop.ends("delayed")
        assert shop.effects("order") == 1
        await shop.ends("handled")
    assert shop.runs["order"] == 1
    assert shop.effects("order") == 1


def lose_the_answer_of_the_next_commit(shop: Shop) -> None:
    """Have the next commit raise, although it has taken place."""
    begin_transaction = shop.store.begin_transaction

    def losing(transaction: Any) -> Any:
        commit = transaction.commit

        def lost() -> None:
            shop.store.begin_transaction = begin_transaction
            raise ConnectionError("the answer is lost")

        async def aio_commit(*last: Any) -> None:
            await commit(*last)
            lost()

        def sync_commit(*last: Any) -> None:
            commit(*last)
            lost()

        transaction.commit = aio_commit if shop.place.aio else sync_commit
        transaction.rollback = _nothing_left if shop.place.aio else lambda: None
        return transaction

    async def aio(wait: float) -> Any:
        return losing(await begin_transaction(wait))

    def sync(wait: float) -> Any:
        return losing(begin_transaction(wait))

    shop.store.begin_transaction = aio if shop.place.aio else sync


async def _nothing_left() -> None:
    """End nothing: the commit has given the connection back."""
