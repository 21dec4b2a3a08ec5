"""The truth table of docs/exactly-once.md: what each caller sees, and how often there is an effect.

Every test is a row, and runs on every store. More rows are in `test_transactions.py` (what a
handler does to its transaction), `test_kills.py` and `test_elsewhere.py`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from fusewire.demo.payments.v1.payments_pb2 import ChargeReply
from fusewire.idempotency import FINAL
from fusewire.idempotency._sql import Dialect
from fusewire.interceptors import read_retry_after
from tests.support.idempotent_client import seen
from tests.support.idempotent_server import TRAILERS, rich
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.idempotent_places import Place
    from tests.support.idempotent_server import Server

LONG = 15.0
"""A wait that is long enough for the others' calls, on a machine of whatever speed."""

FINAL_NAMES = sorted(code.name for code in FINAL)
TRANSIENT_NAMES = sorted(
    code.name for code in grpc.StatusCode if code not in FINAL and code is not grpc.StatusCode.OK
)


def test_ok_is_given_again_byte_for_byte_and_the_handler_not_run(server: Server) -> None:
    first = server.ask("ok", "a")
    assert first.code == "OK"
    assert first.trailers == TRAILERS
    assert first.word is None
    for _ in range(3):
        again = server.ask("ok", "a")
        assert again.told == first.told
        assert again.word == "replayed"
    assert server.script.runs["a"] == 1
    assert server.effects("a") == 1


def test_another_key_is_another_work(server: Server) -> None:
    first, second = server.ask("ok", "a", key="1"), server.ask("ok", "a", key="2")
    assert first.reply != second.reply
    assert server.effects("a") == 2


def test_without_a_key_every_call_is_made_in_a_transaction_of_its_own(server: Server) -> None:
    assert server.ask("ok", "a", key=None).code == "OK"
    assert server.ask("ok", "a", key=None).code == "OK"
    assert server.ask("raise", "a", key=None).code == "UNKNOWN"
    assert server.ask("abort:NOT_FOUND", "a", key=None).code == "NOT_FOUND"
    assert server.effects("a") == 2
    assert server.database.records() == 0


def test_many_at_once_all_get_one_reply(serve: Callable[..., Server]) -> None:
    server = serve(wait=LONG)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: server.ask("ok", "a"), range(4)))
    assert {answer.code for answer in answers} == {"OK"}
    assert len({answer.told for answer in answers}) == 1
    assert server.script.runs["a"] == 1
    assert server.effects("a") == 1


def test_two_servers_of_one_database_make_it_once(serve: Callable[..., Server]) -> None:
    server, other = serve(wait=LONG), serve(wait=LONG)
    calls = [each.start("ok", "a") for each in (server, other) * 3]
    answers = [seen(call) for call in calls]
    assert {answer.code for answer in answers} == {"OK"}
    assert len({answer.told for answer in answers}) == 1
    assert server.script.runs["a"] + other.script.runs["a"] == 1
    assert server.effects("a") == 1


def test_a_second_call_is_refused_when_the_first_takes_longer_than_the_wait(
    server: Server, place: Place
) -> None:
    first = server.start("slow", "a")
    assert server.script.begun.wait(20)
    second = server.ask("slow", "a")
    assert second.code == "ABORTED"
    # On SQLite the lock is the whole database's, and whose it is cannot be known.
    assert second.word == ("busy" if place.kind is Dialect.SQLITE else "in-progress")
    assert read_retry_after(second.trailers) == 0.5
    server.script.go_on.set()
    assert seen(first).code == "OK"
    assert server.ask("slow", "a").told == seen(first).told
    assert server.effects("a") == 1


def test_another_request_under_a_key_is_refused(server: Server) -> None:
    first = server.ask("ok", "a", amount=1)
    other = server.ask("ok", "a", amount=2)
    assert (other.code, other.word) == ("INVALID_ARGUMENT", "key-reused")
    assert other.reply == b""
    # The refused call has not touched the record of the first.
    assert server.ask("ok", "a", amount=1).told == first.told
    assert server.effects("a") == 1


def test_a_final_refusal_is_stored_and_its_work_rolled_back(server: Server) -> None:
    for code in FINAL_NAMES:
        first = server.ask(f"abort:{code}", code)
        assert (first.code, first.details) == (code, f"said {code} in ünïcode")
        assert first.trailers == TRAILERS
        again = server.ask(f"abort:{code}", code)
        assert again.told == first.told
        assert again.word == "replayed"
        assert server.script.runs[code] == 1
        assert server.effects(code) == 0


def test_a_rich_refusal_comes_back_byte_for_byte(server: Server) -> None:
    first = server.ask("rich:NOT_FOUND", "a")
    assert dict(first.trailers) == dict(rich("NOT_FOUND").trailing_metadata)
    assert server.ask("rich:NOT_FOUND", "a").told == first.told
    assert server.script.runs["a"] == 1


def test_a_transient_end_is_rolled_back_and_the_key_runs_again(server: Server) -> None:
    for code in TRANSIENT_NAMES:
        for runs in (1, 2):
            answer = server.ask(f"abort:{code}", code)
            assert (answer.code, answer.word) == (code, None)
            assert answer.trailers == TRAILERS
            assert server.script.runs[code] == runs
        assert server.effects(code) == 0
    assert server.database.records() == 0


def test_an_exception_is_rolled_back_and_the_key_runs_again(server: Server) -> None:
    for runs in (1, 2):
        answer = server.ask("raise", "a")
        assert (answer.code, answer.word) == ("UNKNOWN", None)
        assert "a bug" in answer.details
        assert server.script.runs["a"] == runs
    assert server.effects("a") == 0


def test_a_status_that_is_set_or_whose_abort_is_swallowed_counts(server: Server) -> None:
    for how in ("set_code", "swallow"):
        final, transient = f"{how} final", f"{how} transient"
        first = server.ask(f"{how}:NOT_FOUND", final)
        assert first.code == "NOT_FOUND"
        assert "NOT_FOUND" in first.details
        assert server.ask(f"{how}:NOT_FOUND", final).told == first.told
        assert server.script.runs[final] == 1
        assert server.ask(f"{how}:UNAVAILABLE", transient).code == "UNAVAILABLE"
        assert server.ask(f"{how}:UNAVAILABLE", transient).code == "UNAVAILABLE"
        assert server.script.runs[transient] == 2
        assert server.effects(final) == server.effects(transient) == 0


@pytest.mark.parametrize("end", ["deadline", "cancel"])
def test_a_handler_goes_on_when_its_caller_has_gone(server: Server, end: str) -> None:
    call = server.start("slow", "a", timeout=0.3 if end == "deadline" else 20)
    assert server.script.begun.wait(20)
    if end == "cancel":
        call.cancel()
    assert seen(call).code == {"deadline": "DEADLINE_EXCEEDED", "cancel": "CANCELLED"}[end]
    server.script.go_on.set()
    until_sync(lambda: server.effects("a") == 1)
    again = server.ask("slow", "a")
    assert (again.code, again.word) == ("OK", "replayed")
    assert server.script.runs["a"] == 1
    assert server.effects("a") == 1


def test_a_large_reply_comes_back_and_one_too_large_is_rolled_back(
    serve: Callable[..., Server],
) -> None:
    server = serve(max_reply=3_100_000)
    first = server.ask("large:3000000", "a")
    assert first.code == "OK"
    assert server.ask("large:3000000", "a").told == first.told
    for runs in (1, 2):
        answer = server.ask("large:3200000", "b")
        assert (answer.code, answer.word) == ("RESOURCE_EXHAUSTED", "reply-too-large")
        assert server.script.runs["b"] == runs
    assert (server.effects("a"), server.effects("b")) == (1, 0)


def test_a_reply_that_cannot_be_serialized_is_internal_and_rolled_back(server: Server) -> None:
    for runs in (1, 2):
        answer = server.ask("unserializable", "a")
        assert (answer.code, answer.details) == ("INTERNAL", "Failed to serialize response!")
        assert server.script.runs["a"] == runs
    assert server.effects("a") == 0


def test_after_the_time_that_keys_are_kept_the_work_is_done_again(server: Server) -> None:
    server.ask("ok", "a")
    server.database.execute(f"UPDATE {server.database.keys} SET expires_at_ms = 1")  # noqa: S608 - ours
    again = server.ask("ok", "a")
    assert (again.code, again.word) == ("OK", None)
    assert server.effects("a") == 2
    # A call that says when it was sent first is refused instead: it may have been made already.
    stale = server.ask("ok", "b", metadata=(("fusewire-first-sent-ms", "1000"),))
    assert (stale.code, stale.word) == ("FAILED_PRECONDITION", "stale-key")
    assert server.effects("b") == 0
    assert server.run(server.store.find, "/a.B/C", "b") is None


def test_a_handler_without_the_transaction_is_warned_of_once(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("1", "2"):
        assert server.ask("idle", "a", key=key).code == "OK"
    server.ask("ok", "a", key="3")
    (record,) = [each for each in caplog.records if each.name == "fusewire.idempotency"]
    assert "has not asked for the store's current transaction" in record.getMessage()


def test_replies_are_the_handlers_own_class_on_replays_too(server: Server) -> None:
    server.ask("ok", "a")
    reply = ChargeReply.FromString(server.ask("ok", "a").reply)
    assert len(reply.charge_id) == 16
