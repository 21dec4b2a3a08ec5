"""Rows of the truth table for `Operations`: what becomes known of a call, and what cancelling does.

Every test is a row, and runs on every store.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.demo.payments.v1.payments_pb2 import ChargeReply
from fusewire.errors import SettingsError
from fusewire.idempotency import NOT_MADE, Action, SQLiteStore, add_operations
from fusewire.idempotency._sql import Dialect
from fusewire.idempotency.v1 import operations_pb2 as v1
from tests.support.idempotent_client import CHARGE, seen
from tests.support.idempotent_places import SYNC_AND_AIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.idempotent_places import Place
    from tests.support.idempotent_server import Server

both = pytest.mark.parametrize("place", SYNC_AND_AIO, ids=["sync", "aio"])


def refused(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Make a call of `Operations` that is refused, and return what is seen of it."""
    with pytest.raises(grpc.RpcError) as refusal:
        call(*arguments, **named)
    return seen(refusal.value)


def test_a_key_without_a_record_is_not_found_and_stays_free(server: Server) -> None:
    for _ in range(2):
        assert server.query("a") == v1.Operation(state=v1.STATE_NOT_FOUND)
    assert server.database.records() == 0
    answer = server.ask("ok", "a")
    assert (answer.code, answer.word) == ("OK", None)
    assert server.effects("a") == 1


def test_what_was_made_is_answered_with_its_reply(server: Server) -> None:
    first = server.ask("ok", "a")
    for operation in (server.query("a"), server.cancel("a")):
        assert operation.state == v1.STATE_ANSWERED
        assert (operation.code, operation.reply) == (0, first.reply)
        assert operation.begun_at.ToMilliseconds() > 0
    again = server.ask("ok", "a")
    assert (again.told, again.word) == (first.told, "replayed")
    assert server.effects("a") == 1


def test_a_stored_refusal_is_answered_with_its_status(server: Server) -> None:
    server.ask("abort:NOT_FOUND", "a")
    for operation in (server.query("a"), server.cancel("a")):
        assert operation.state == v1.STATE_ANSWERED
        assert (operation.code, operation.details) == (5, "said NOT_FOUND in ünïcode")
        assert operation.reply == b""


def test_what_ended_transiently_is_not_found(server: Server) -> None:
    server.ask("abort:UNAVAILABLE", "a")
    server.ask("raise", "a")
    assert server.query("a").state == v1.STATE_NOT_FOUND


def test_a_call_that_is_running_is_in_progress_and_too_late_to_cancel(
    server: Server, place: Place
) -> None:
    first = server.start("slow", "a")
    assert server.script.begun.wait(20)
    for ask in (server.query, server.cancel):
        if place.kind is Dialect.SQLITE:
            # The lock is the whole database's, and whose it is cannot be known.
            busy = refused(ask, "a")
            assert (busy.code, busy.word) == ("ABORTED", "busy")
        else:
            assert ask("a").state == v1.STATE_IN_PROGRESS
    server.script.go_on.set()
    assert seen(first).code == "OK"
    assert server.query("a").reply == seen(first).reply
    assert server.effects("a") == 1


def test_elsewhere_a_call_is_in_progress_until_its_lease_is_over_and_then_in_doubt(
    serve: Callable[..., Server],
) -> None:
    server = serve(effects="elsewhere")
    first = server.start("slow", "a")
    assert server.script.begun.wait(20)
    for ask in (server.query, server.cancel):
        assert ask("a").state == v1.STATE_IN_PROGRESS
    server.database.execute(f"UPDATE {server.database.keys} SET lease_until_ms = 1")  # noqa: S608 - ours
    for ask in (server.query, server.cancel):
        operation = ask("a")
        assert operation.state == v1.STATE_IN_DOUBT
        assert operation.begun_at.ToMilliseconds() > 0
    server.script.go_on.set()
    assert seen(first).code == "OK"
    assert server.query("a").state == v1.STATE_ANSWERED


def test_elsewhere_what_a_person_resolves_is_known(serve: Callable[..., Server]) -> None:
    server = serve(effects="elsewhere")
    reply = ChargeReply(charge_id="found").SerializeToString()
    for key, made in (("made", reply), ("not made", NOT_MADE)):
        server.ask("raise", "a", key=key)
        assert server.query(key).state == v1.STATE_IN_DOUBT
        assert server.run(server.store.resolve, CHARGE, key, made=made) is True
    assert server.query("made").reply == reply
    assert server.query("not made").state == v1.STATE_NOT_FOUND


def test_a_cancelled_key_is_refused_for_good_and_nothing_runs(server: Server) -> None:
    assert server.cancel("a").state == v1.STATE_CANCELLED
    for amount in (0, 1):
        answer = server.ask("ok", "a", amount=amount)
        assert (answer.code, answer.word) == ("FAILED_PRECONDITION", "cancelled")
    assert server.script.runs["a"] == server.effects("a") == 0
    first, again = server.query("a"), server.cancel("a")
    assert first == again
    assert first.state == v1.STATE_CANCELLED
    assert server.run(server.store.sweep) == 0


def test_elsewhere_a_cancelled_key_is_refused_too(serve: Callable[..., Server]) -> None:
    server = serve(effects="elsewhere", on_doubt="rerun")
    assert server.cancel("a").state == v1.STATE_CANCELLED
    answer = server.ask("ok", "a")
    assert (answer.code, answer.word) == ("FAILED_PRECONDITION", "cancelled")
    assert server.effects("a") == 0


def test_a_cancellation_that_was_a_mistake_is_forgotten(server: Server) -> None:
    server.cancel("a")
    assert server.run(server.store.forget, CHARGE, "a") is True
    assert server.ask("ok", "a").code == "OK"


def test_of_a_call_and_its_cancellation_at_once_one_wins(serve: Callable[..., Server]) -> None:
    server = serve(wait=15)  # on SQLite each waits for all others
    keys = [f"k{number}" for number in range(8)]
    with ThreadPoolExecutor(4) as threads:
        calls = {key: server.start("ok", key) for key in keys}
        operations = dict(zip(keys, threads.map(server.cancel, keys), strict=True))
    for key in keys:
        answer, made = seen(calls[key]), server.effects(key)
        if operations[key].state == v1.STATE_CANCELLED:
            assert (answer.code, answer.word, made) == ("FAILED_PRECONDITION", "cancelled", 0)
        else:
            assert (answer.code, made) == ("OK", 1)
            assert server.query(key).reply == answer.reply


def test_a_call_so_old_that_its_record_would_have_expired_is_stale(server: Server) -> None:
    for ask in (server.query, server.cancel):
        assert ask("a", first_sent_ms=1000).state == v1.STATE_STALE
    assert server.database.records() == 0
    # A record is the better witness.
    server.ask("ok", "b")
    assert server.query("b", first_sent_ms=1000).state == v1.STATE_ANSWERED


def test_a_record_that_has_expired_tells_the_truth_until_it_is_swept(server: Server) -> None:
    server.ask("ok", "a")
    server.database.execute(f"UPDATE {server.database.keys} SET expires_at_ms = 1")  # noqa: S608 - ours
    for ask in (server.query, server.cancel):
        assert ask("a").state == v1.STATE_ANSWERED
    assert server.run(server.store.sweep) == 1
    assert server.query("a").state == v1.STATE_NOT_FOUND


def test_a_database_that_cannot_be_asked_is_unavailable(server: Server) -> None:
    keys = server.database.keys
    server.database.execute(f'ALTER TABLE {keys} RENAME TO "elsewhere"')
    for ask in (server.query, server.cancel):
        answer = refused(ask, "a")
        assert (answer.code, answer.word) == ("UNAVAILABLE", "unavailable")


def test_a_record_of_a_later_release_cannot_be_told(server: Server) -> None:
    server.ask("ok", "a")
    server.database.execute(f"UPDATE {server.database.keys} SET format = 99")  # noqa: S608 - ours
    answer = refused(server.query, "a")
    assert (answer.code, answer.word) == ("UNAVAILABLE", "later-format")


# What follows is decided before the database is asked: on one sync and one asyncio store.


@both
@pytest.mark.parametrize("said", [False, None, 1, "yes"])
def test_nothing_but_true_allows_it(serve: Callable[..., Server], place: Place, said: Any) -> None:
    server = serve(authorize=lambda *_: said)
    for ask in (server.query, server.cancel):
        assert refused(ask, "a").code == "PERMISSION_DENIED"
    assert server.database.records() == 0


@both
def test_who_may_is_asked_with_the_context_and_what_is_asked_for(
    serve: Callable[..., Server], place: Place
) -> None:
    asked: list[tuple[Any, ...]] = []

    def may(context: Any, action: Action, method: str, key: str) -> bool:
        role = dict(context.invocation_metadata()).get("role")
        asked.append((role, action, method, key))
        return action is Action.QUERY or role == "admin"

    server = serve(authorize=may)
    assert server.query("a").state == v1.STATE_NOT_FOUND
    assert refused(server.cancel, "a").code == "PERMISSION_DENIED"
    assert server.cancel("a", metadata=(("role", "admin"),)).state == v1.STATE_CANCELLED
    assert asked == [
        (None, "query", CHARGE, "a"),
        (None, "cancel", CHARGE, "a"),
        ("admin", "cancel", CHARGE, "a"),
    ]


@both
def test_a_check_that_fails_allows_nothing(serve: Callable[..., Server], place: Place) -> None:
    server = serve(authorize=lambda *_: 1 / 0)
    assert refused(server.cancel, "a").code == "UNKNOWN"
    assert server.database.records() == 0


@pytest.mark.parametrize("place", SYNC_AND_AIO[1:], ids=["aio"])
def test_on_asyncio_the_check_may_be_awaited(serve: Callable[..., Server], place: Place) -> None:
    async def may(_: Any, action: Action, *__: str) -> bool:
        return action is Action.QUERY

    server = serve(authorize=may)
    assert server.query("a").state == v1.STATE_NOT_FOUND
    assert refused(server.cancel, "a").code == "PERMISSION_DENIED"


@both
def test_a_tenant_sees_and_cancels_its_own_keys(serve: Callable[..., Server], place: Place) -> None:
    server = serve(scope=lambda context: dict(context.invocation_metadata())["tenant"])
    mine, theirs = ((("tenant", name),) for name in ("mine", "theirs"))
    server.ask("ok", "a", metadata=mine)
    assert server.query("a", metadata=mine).state == v1.STATE_ANSWERED
    assert server.query("a", metadata=theirs).state == v1.STATE_NOT_FOUND
    assert server.cancel("a", metadata=theirs).state == v1.STATE_CANCELLED
    assert server.ask("ok", "a", metadata=mine).word == "replayed"
    assert server.ask("ok", "a", metadata=theirs).word == "cancelled"


@both
def test_a_method_that_is_not_declared_is_not_taken_for_one_without_calls(
    serve: Callable[..., Server], place: Place
) -> None:
    answer = refused(serve().query, "a", method="/pkg.Other/Charge")
    assert answer.code == "INVALID_ARGUMENT"
    assert "/pkg.Other/Charge is not declared idempotent" in answer.details


@both
@pytest.mark.parametrize("key", ["", "ü", "a\n"])
def test_a_key_that_metadata_cannot_hold_is_refused(
    serve: Callable[..., Server], place: Place, key: str
) -> None:
    assert refused(serve().query, key).code == "INVALID_ARGUMENT"


@both
def test_a_long_key_is_found(serve: Callable[..., Server], place: Place) -> None:
    server = serve()
    server.ask("ok", "a", key="k" * 2000)
    assert server.query("k" * 2000).state == v1.STATE_ANSWERED


def test_what_cannot_be_right_is_refused(tmp_path: Path) -> None:
    server: Any = grpc.server(ThreadPoolExecutor(1))
    add: Any = add_operations

    async def awaited(*_: Any) -> bool:
        return True

    with SQLiteStore(tmp_path / "keys.db") as store:
        with pytest.raises(SettingsError, match="store must be"):
            add(server, "keys.db", authorize=lambda *_: True)
        with pytest.raises(SettingsError, match="authorize must be a function that takes"):
            add(server, store, authorize=lambda _: True)
        with pytest.raises(SettingsError, match="a coroutine function"):
            add(server, store, authorize=awaited)
        with pytest.raises(TypeError, match="authorize"):
            add(server, store)


async def test_a_store_for_the_other_kind_of_server_is_refused(tmp_path: Path) -> None:
    server = grpc.aio.server()
    with (
        SQLiteStore(tmp_path / "keys.db") as store,
        pytest.raises(SettingsError, match="both for asyncio or both not"),
    ):
        add_operations(server, store, authorize=lambda *_: True)
