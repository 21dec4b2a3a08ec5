"""Rows of the truth table: what a handler, or the database, does to the handler's transaction."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.idempotency._sql import Dialect
from tests.support.idempotent_places import PLACES
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.idempotent_places import Place
    from tests.support.idempotent_server import Server

_NAMES = {place.name: place for place in PLACES}
JOINING = [place for place in PLACES if place.joins]
ON_POSTGRESQL = [place for place in PLACES if place.kind is Dialect.POSTGRESQL]

joining = pytest.mark.parametrize("place", JOINING, ids=str)
on_postgresql = pytest.mark.parametrize("place", ON_POSTGRESQL, ids=str)


@joining
def test_a_final_refusal_keeps_what_the_handler_committed_itself(server: Server) -> None:
    first = server.ask("commit:NOT_FOUND", "a")
    assert first.code == "NOT_FOUND"
    assert (server.effects("a"), server.effects("a after")) == (1, 0)
    assert server.ask("commit:NOT_FOUND", "a").told == first.told
    assert server.script.runs["a"] == 1
    assert server.ask("commit:NOT_FOUND", "b", key=None).code == "NOT_FOUND"
    assert (server.effects("b"), server.effects("b after")) == (1, 0)


@joining
def test_a_transient_end_rolls_back_what_the_handler_committed_itself(server: Server) -> None:
    for runs in (1, 2):
        assert server.ask("commit:UNAVAILABLE", "a").code == "UNAVAILABLE"
        assert (server.effects("a"), server.effects("a after")) == (0, 0)
        assert server.script.runs["a"] == runs


@joining
def test_a_handlers_commit_and_rollback_mean_what_they_do_elsewhere(server: Server) -> None:
    first = server.ask("commit", "a")
    assert first.code == "OK"
    assert server.ask("commit", "a").told == first.told
    assert (server.effects("a"), server.effects("a after")) == (1, 1)
    assert server.ask("rollback", "b").code == "OK"
    assert (server.effects("b"), server.effects("b after")) == (0, 1)


@pytest.mark.parametrize("place", [_NAMES["psycopg"], _NAMES["aio psycopg"]], ids=str)
def test_psycopg_refuses_a_handlers_commit_and_nothing_is_done(server: Server) -> None:
    answer = server.ask("commit", "a")
    assert answer.code == "UNKNOWN"
    assert "it is the server that ends it" in answer.details
    assert server.effects("a") == 0
    assert server.database.records() == 0


@pytest.mark.parametrize("place", [_NAMES["connection on postgresql"]], ids=str)
def test_a_connections_commit_ends_the_transaction_and_the_reply_is_still_recorded(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    first = server.ask("commit", "a")
    assert first.code == "OK"
    assert "has ended the transaction itself" in caplog.text
    assert server.ask("commit", "a").told == first.told
    assert server.effects("a") == 1


def test_a_commit_in_sql_is_seen_and_the_reply_still_recorded(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    first = server.ask("sql:COMMIT", "a")
    assert first.code == "OK"
    assert "has ended the transaction itself" in caplog.text
    assert server.ask("sql:COMMIT", "a").told == first.told
    assert server.effects("a") == 1


def test_a_reply_whose_effects_were_rolled_back_is_never_given(server: Server) -> None:
    for runs in (1, 2):
        answer = server.ask("sql:ROLLBACK", "a")
        assert (answer.code, answer.word) == ("ABORTED", "conflict")
        assert server.script.runs["a"] == runs
    assert server.effects("a") == 0
    assert server.database.records() == 0


REFUSING_AGAIN = [
    place for place in ON_POSTGRESQL if not place.joins
]  # their refusals are stored by a second claim


@pytest.mark.parametrize("place", REFUSING_AGAIN, ids=str)
def test_a_refusal_that_another_call_overtakes_gives_way_to_its_answer(server: Server) -> None:
    overtaking: list[Any] = []

    def overtake() -> None:
        # The first call has rolled back its work, and is about to store its refusal.
        if server.script.runs["a"] == 1 and not overtaking:
            overtaking.append(None)
            overtaking[0] = server.ask("once:NOT_FOUND", "a")

    before_each_transaction(server, overtake)
    first = server.ask("once:NOT_FOUND", "a")
    assert overtaking[0].code == "OK"
    assert first.told == overtaking[0].told
    assert server.ask("once:NOT_FOUND", "a").told == first.told
    assert server.effects("a") == 1


def before_each_transaction(server: Server, call: Callable[[], None]) -> None:
    """Have the server's store call a function before it begins a transaction."""
    begin_transaction = server.store.begin_transaction

    async def aio(wait: float) -> Any:
        await asyncio.to_thread(call)
        return await begin_transaction(wait)

    def sync(wait: float) -> Any:
        call()
        return begin_transaction(wait)

    server.store.begin_transaction = aio if server.place.aio else sync


@on_postgresql
def test_an_expired_record_that_another_call_takes_first_is_its_own(server: Server) -> None:
    server.ask("ok", "a")
    database = server.database
    database.execute(f"UPDATE {database.keys} SET expires_at_ms = 1")  # noqa: S608 - ours
    begin, others = server.store.begin_transaction, []

    def overtaken(transaction: Any) -> Any:
        execute = transaction.execute

        def overtake(sql: str) -> None:
            # The call has found the record expired, and is about to take it.
            if sql == server.store.sql.renew and not others:
                others.append(None)
                others[0] = server.ask("ok", "a")

        async def aio_execute(sql: str, parameters: Any) -> Any:
            await asyncio.to_thread(overtake, sql)
            return await execute(sql, parameters)

        def sync_execute(sql: str, parameters: Any) -> Any:
            overtake(sql)
            return execute(sql, parameters)

        transaction.execute = aio_execute if server.place.aio else sync_execute
        return transaction

    async def aio_begin(wait: float) -> Any:
        return overtaken(await begin(wait))

    def sync_begin(wait: float) -> Any:
        return overtaken(begin(wait))

    server.store.begin_transaction = aio_begin if server.place.aio else sync_begin
    assert server.ask("ok", "a").told == others[0].told
    assert server.effects("a") == 2


@on_postgresql
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_stricter_isolation_gives_every_duplicate_the_reply(server: Server, level: str) -> None:
    database = server.database
    database.execute(f"ALTER ROLE CURRENT_USER SET default_transaction_isolation = '{level}'")
    try:
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: server.ask("ok", "a"), range(4)))
    finally:
        database.execute("ALTER ROLE CURRENT_USER RESET default_transaction_isolation")
    assert {answer.code for answer in answers} <= {"OK", "ABORTED"}
    assert len({answer.told for answer in answers if answer.code == "OK"}) == 1
    assert server.ask("ok", "a").code == "OK"
    assert server.effects("a") == 1


@on_postgresql
def test_a_failed_statement_that_nobody_notices_undoes_the_call(server: Server) -> None:
    for key in ("a", None):
        answer = server.ask("fails:SELECT 1 / 0", "a", key=key)
        assert answer.code == "UNKNOWN"
        assert server.effects("a") == 0
    assert server.database.records() == 0


@on_postgresql
def test_a_connection_that_is_lost_in_the_handler_undoes_the_call(server: Server) -> None:
    for key in ("a", None):
        answer = server.ask("fails:SELECT pg_terminate_backend(pg_backend_pid())", "a", key=key)
        assert answer.code in ("UNAVAILABLE", "UNKNOWN")
        assert server.effects("a") == 0
    assert server.database.records() == 0
    assert server.ask("ok", "b").code == "OK"


# SQLAlchemy sends nothing for a transaction that its driver knows to be over.
@pytest.mark.parametrize(
    ("place", "moment"),
    [
        *((place, "before") for place in ON_POSTGRESQL),
        *((_NAMES[name], "after") for name in ("psycopg", "aio psycopg", "asyncpg")),
    ],
    ids=str,
)
def test_a_connection_that_is_lost_in_the_commit_leaves_it_to_the_record(
    server: Server, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    lose_the_next_commit(server, moment)
    first = server.ask("ok", "a")
    assert (first.code, first.word) == ("UNAVAILABLE", "unavailable")
    assert "the record of its key decides" in caplog.text
    committed = moment == "after"
    assert server.effects("a") == int(committed)
    again = server.ask("ok", "a")
    assert (again.code, again.word) == ("OK", "replayed" if committed else None)
    assert server.script.runs["a"] == (1 if committed else 2)
    assert server.effects("a") == 1


def lose_the_next_commit(server: Server, moment: str) -> None:
    """Have the connection end just before the next COMMIT arrives, or before its answer does."""
    begin_transaction = server.store.begin_transaction

    def losing(transaction: Any) -> Any:
        commit, execute = transaction.commit, transaction.execute
        pids: list[int] = []

        def terminate() -> None:
            server.database.execute(f"SELECT pg_terminate_backend({pids[0]})")
            gone = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pids[0]}"  # noqa: S608 - ours
            until_sync(lambda: server.database.execute(gone)[0][0] == 0)

        async def aio_commit(last: Any) -> Any:
            pids.append((await execute("SELECT pg_backend_pid()", {}))[0][0])
            if moment == "after":
                await execute(last.sql, last.parameters)
                await server.place.execute(transaction._connection, "COMMIT")
            await asyncio.to_thread(terminate)
            server.store.begin_transaction = begin_transaction
            return await commit(last)

        def sync_commit(last: Any) -> Any:
            pids.append(execute("SELECT pg_backend_pid()", {})[0][0])
            if moment == "after":
                execute(last.sql, last.parameters)
                server.place.execute(transaction._connection, "COMMIT")
            terminate()
            server.store.begin_transaction = begin_transaction
            return commit(last)

        transaction.commit = aio_commit if server.place.aio else sync_commit
        return transaction

    async def aio(wait: float) -> Any:
        return losing(await begin_transaction(wait))

    def sync(wait: float) -> Any:
        return losing(begin_transaction(wait))

    server.store.begin_transaction = aio if server.place.aio else sync


@on_postgresql
def test_a_serialization_failure_in_the_handler_is_aborted_and_never_stored(
    server: Server,
) -> None:
    sql = "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"
    for runs in (1, 2):
        answer = server.ask(f"sql:{sql}", "a")
        assert (answer.code, answer.word) == ("ABORTED", "conflict")
        assert server.script.runs["a"] == runs
    assert server.effects("a") == 0
    assert server.database.records() == 0


@on_postgresql
def test_the_handlers_own_locks_wait_as_its_connection_is_configured_to(server: Server) -> None:
    checked = "SELECT 1 / CASE current_setting('lock_timeout') WHEN '0' THEN 1 ELSE 0 END"
    assert server.ask(f"sql:{checked}", "a").code == "OK"


@on_postgresql
def test_a_deferred_constraint_that_fails_at_the_commit_is_the_handlers_error(
    server: Server,
) -> None:
    database = server.database
    database.execute(
        f"ALTER TABLE {database.ledger} ADD CONSTRAINT once UNIQUE (operation)"
        " DEFERRABLE INITIALLY DEFERRED"
    )
    assert server.ask("ok", "a", key="1").code == "OK"
    answer = server.ask("ok", "a", key="2")
    assert answer.code == "UNKNOWN"
    assert "once" in answer.details
    assert server.effects("a") == 1
    assert server.database.records() == 1


def test_a_database_that_cannot_be_asked_is_unavailable_and_nothing_runs(
    server: Server, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    keys = server.database.keys
    server.database.execute(f'ALTER TABLE {keys} RENAME TO "elsewhere"')
    answer = server.ask("ok", "a")
    assert (answer.code, answer.word) == ("UNAVAILABLE", "unavailable")
    assert "its handler did not run" in caplog.text
    assert server.script.runs["a"] == 0
    schema = f'"{server.database.schema}".' if server.database.schema else ""
    server.database.execute(f'ALTER TABLE {schema}"elsewhere" RENAME TO "fusewire_idempotency"')
    until_sync(lambda: server.ask("ok", "a").code == "OK")
    assert server.effects("a") == 1
