"""The stores by psycopg: a call's statements, their round trips, and names that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fusewire.idempotency import _psycopg_trip as trips
from tests.support.idempotent_client import seen
from tests.support.idempotent_places import PLACES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.idempotent_server import Server

BY_PSYCOPG = [place for place in PLACES if place.name in ("psycopg", "aio psycopg")]

pytestmark = pytest.mark.parametrize("place", BY_PSYCOPG, ids=str)

DEALLOCATE = "sql:DEALLOCATE ALL"


@pytest.fixture
def trip_lengths(monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """Provide the first words of the statements of each round trip."""
    seen: list[list[bytes]] = []
    trip = trips.trip

    def watched(pgconn: Any, statements: Any, *others: Any) -> Any:
        seen.append([each.sql.split()[0] for each in statements])
        return trip(pgconn, statements, *others)

    monkeypatch.setattr("fusewire.idempotency.psycopg.trip", watched)
    return seen


def test_a_call_has_two_round_trips_of_its_own_and_a_replay_three(
    server: Server, trip_lengths: list[list[bytes]]
) -> None:
    server.ask("ok", "a")
    assert trip_lengths == [[b"BEGIN", b"INSERT"], [b"SAVEPOINT", b"WITH", b"COMMIT"]]
    trip_lengths.clear()
    assert server.ask("ok", "a").word == "replayed"
    assert trip_lengths == [[b"BEGIN", b"INSERT"], [b"SELECT"], [b"ROLLBACK"]]


def test_a_handler_that_makes_names_go_is_still_committed(server: Server) -> None:
    for key in ("5", "6", "7", "8"):  # until each connection of the pool knows all names
        assert server.ask("ok", "b", key=key).code == "OK"
    for key in ("1", "2", "3"):
        first = server.ask(DEALLOCATE, "a", key=key)
        assert first.code == "OK"
        assert server.ask(DEALLOCATE, "a", key=key).told == first.told
    assert server.effects("a") == 3


def test_a_name_that_is_gone_before_the_claim_is_not_asked_for(
    server: Server, trip_lengths: list[list[bytes]]
) -> None:
    assert server.ask("ok", "a", key="1").code == "OK"
    # The handler's statement is the last of a call that is then rolled back.
    assert server.ask(f"{DEALLOCATE}; SELECT 1/0", "a", key="2").code == "UNKNOWN"
    trip_lengths.clear()
    keys = ("3", "4", "5", "6")  # on each connection of the pool
    assert {server.ask("ok", "a", key=key).code for key in keys} == {"OK"}
    # PostgreSQL would log a warning: where BEGIN itself has no name, nothing has begun.
    assert [b"ROLLBACK"] not in trip_lengths
    assert {server.ask("ok", "a", key=key).word for key in keys} == {"replayed"}
    assert server.effects("a") == 5


def test_a_name_that_is_anothers_is_not_used(server: Server) -> None:
    assert server.ask("ok", "a", key="1").code == "OK"
    server.store._preparations._names.clear()  # as a pooler's other client, on the same connection
    for key in ("2", "3"):
        first = server.ask("ok", "a", key=key)
        assert first.code == "OK"
        assert server.ask("ok", "a", key=key).told == first.told
    assert server.effects("a") == 3
    assert server.store._preparations._shared


def test_what_was_prepared_by_a_call_that_failed_is_known(server: Server) -> None:
    first = server.start("slow", "a")
    assert server.script.begun.wait(20)
    # Its connection is a new one: the claim is prepared on it, and then waits in vain.
    assert server.ask("slow", "a").word == "in-progress"
    server.script.go_on.set()
    assert seen(first).code == "OK"
    for key in ("1", "2", "3", "4"):  # on each connection of the pool
        assert server.ask("ok", "b", key=key).code == "OK"
    assert not server.store._preparations._shared


def test_where_nothing_may_be_prepared_nothing_is(server: Server, place: Any) -> None:
    counted = "SELECT 1 / CASE count(*) WHEN 0 THEN 1 ELSE 0 END FROM pg_prepared_statements"
    asked = f"sql:{counted} WHERE name LIKE 'fusewire%'"

    def unprepared(transaction: Any) -> Any:
        transaction._connection.prepare_threshold = None
        transaction._names = None
        return transaction

    on_each_begin(server, unprepared)
    assert server.ask(DEALLOCATE, "a", key="1").code == "OK"  # that of the look at the table
    assert server.ask("ok", "a", key="0").code == "OK"
    assert server.ask(asked, "a", key="2").code == "OK"
    assert server.ask(asked, "a", key="2").word == "replayed"


def on_each_begin(server: Server, change: Callable[[Any], Any]) -> None:
    """Have each transaction changed before its first statement."""
    begin = server.store.begin_transaction

    async def aio_begin(wait: float) -> Any:
        return change(await begin(wait))

    def sync_begin(wait: float) -> Any:
        return change(begin(wait))

    server.store.begin_transaction = aio_begin if server.place.aio else sync_begin


def test_an_old_libpq_has_a_round_trip_for_each_statement(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg.Pipeline, "is_supported", lambda: False)
    first = server.ask("ok", "a")
    assert first.code == "OK"
    assert server.ask("ok", "a").told == first.told
    assert server.ask(DEALLOCATE, "b").code == "OK"
    assert server.ask("abort:NOT_FOUND", "c").code == "NOT_FOUND"
    assert server.ask("abort:NOT_FOUND", "c").word == "replayed"
    assert (server.effects("a"), server.effects("b")) == (1, 1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, b"BEGIN"),
        (
            {"isolation_level": psycopg.IsolationLevel.REPEATABLE_READ},
            b"BEGIN ISOLATION LEVEL REPEATABLE READ",
        ),
        (
            {"read_only": False, "deferrable": True},
            b"BEGIN READ WRITE DEFERRABLE",
        ),
        ({"read_only": True, "deferrable": False}, b"BEGIN READ ONLY NOT DEFERRABLE"),
    ],
)
def test_a_transaction_begins_as_its_connection_is_configured_to(
    place: Any, settings: dict[str, Any], text: bytes
) -> None:
    class Connection:
        isolation_level = read_only = deferrable = None

    connection: Any = Connection()
    vars(connection).update(settings)
    assert trips.begin(connection).sql == text


def test_a_connections_isolation_is_that_of_its_calls(server: Server) -> None:
    def strict(transaction: Any) -> Any:
        transaction._connection._isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        return transaction

    on_each_begin(server, strict)
    level = "current_setting('transaction_isolation')"
    checked = f"SELECT 1 / CASE {level} WHEN 'serializable' THEN 1 ELSE 0 END"
    assert server.ask(f"sql:{checked}", "a").code == "OK"
