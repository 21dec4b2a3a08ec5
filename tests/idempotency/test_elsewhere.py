"""Rows of the truth table for effects that are elsewhere: what cannot be rolled back is in doubt.

The effect is an entry in a ledger that the handler writes on a connection of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.demo.payments.v1.payments_pb2 import ChargeReply
from fusewire.errors import SettingsError
from fusewire.idempotency import FINAL, NOT_MADE
from tests.support.idempotent_client import CHARGE, seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.idempotent_places import Place
    from tests.support.idempotent_server import Server

NOTHING_HAPPENED = [
    "UNAVAILABLE",
    "ABORTED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "UNIMPLEMENTED",
]
DOUBTFUL = ["INTERNAL", "UNKNOWN", "DATA_LOSS", "DEADLINE_EXCEEDED", "CANCELLED"]


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve(effects="elsewhere")


def test_ok_and_final_refusals_are_stored(server: Server) -> None:
    first = server.ask("ok", "a")
    assert first.code == "OK"
    assert server.ask("ok", "a").told == first.told
    assert server.effects("a") == 1
    for code in sorted(each.name for each in FINAL):
        refused = server.ask(f"abort:{code}", code)
        assert server.ask(f"abort:{code}", code).told == refused.told
        assert server.script.runs[code] == 1


def test_a_status_that_says_nothing_happened_is_believed(server: Server) -> None:
    for code in NOTHING_HAPPENED:
        for runs in (1, 2):
            assert server.ask(f"abort:{code}", code).code == code
            assert server.script.runs[code] == runs


def test_any_other_status_leaves_the_work_in_doubt_at_once(server: Server) -> None:
    for code in DOUBTFUL:
        assert server.ask(f"abort:{code}", code).code == code
        for _ in range(2):
            answer = server.ask(f"abort:{code}", code)
            assert (answer.code, answer.word) == ("FAILED_PRECONDITION", "in-doubt")
        assert server.script.runs[code] == 1
        assert server.effects(code) == 1


def test_an_exception_leaves_the_work_in_doubt_at_once(server: Server) -> None:
    assert server.ask("raise", "a").code == "UNKNOWN"
    assert server.ask("raise", "a").word == "in-doubt"
    assert server.script.runs["a"] == 1


def test_a_reply_that_cannot_be_stored_leaves_the_work_in_doubt(
    serve: Callable[..., Server],
) -> None:
    server = serve(effects="elsewhere", max_reply=100)
    assert server.ask("large:200", "a").word == "reply-too-large"
    assert server.ask("large:200", "a").word == "in-doubt"
    assert server.ask("unserializable", "b").code == "INTERNAL"
    assert server.ask("unserializable", "b").word == "in-doubt"
    assert server.effects("a") == server.effects("b") == 1


def test_a_second_call_is_in_progress_until_the_lease_is_over_and_then_in_doubt(
    server: Server,
) -> None:
    first = server.start("slow", "a")
    assert server.script.begun.wait(20)
    second = server.ask("slow", "a")
    assert (second.code, second.word) == ("ABORTED", "in-progress")
    keys = server.database.keys
    server.database.execute(f"UPDATE {keys} SET lease_until_ms = 1")  # noqa: S608 - ours
    for _ in range(2):
        assert server.ask("slow", "a").word == "in-doubt"
    server.script.go_on.set()
    assert seen(first).code == "OK"
    assert server.ask("slow", "a").told == seen(first).told
    assert server.script.runs["a"] == 1


def test_a_doubt_does_not_expire(server: Server) -> None:
    server.ask("raise", "a")
    (expires,) = server.database.execute(f"SELECT expires_at_ms FROM {server.database.keys}")  # noqa: S608 - ours
    assert expires[0] == 2**63 - 1
    assert server.run(server.store.sweep) == 0
    assert server.run(server.store.forget, CHARGE, "a") is (False)


def test_a_person_resolves_a_doubt(server: Server) -> None:
    reply = ChargeReply(charge_id="found").SerializeToString()
    resolve = server.store.resolve
    for key in ("made", "not made"):
        assert server.ask("raise", "a", key=key).code == "UNKNOWN"
    assert server.run(resolve, CHARGE, "made", made=reply) is True
    answer = server.ask("raise", "a", key="made")
    assert (answer.code, answer.reply, answer.word) == ("OK", reply, "replayed")
    assert server.run(resolve, CHARGE, "not made", made=NOT_MADE) is True
    assert server.ask("raise", "a", key="not made").code == "UNKNOWN"
    assert server.script.runs["a"] == 3


def test_only_a_doubt_is_resolved(server: Server) -> None:
    resolve = server.store.resolve
    assert server.run(resolve, CHARGE, "a", made=NOT_MADE) is False
    running = server.start("slow", "a")
    assert server.script.begun.wait(20)
    assert server.run(resolve, CHARGE, "a", made=NOT_MADE) is False
    server.script.go_on.set()
    first = seen(running)
    assert server.run(resolve, CHARGE, "a", made=NOT_MADE) is False
    assert server.ask("slow", "a").told == first.told
    for wrong in (None, "reply", ChargeReply()):
        with pytest.raises(SettingsError, match="made must be the bytes of the reply, or NOT_MADE"):
            server.run(resolve, CHARGE, "a", made=wrong)


def test_another_request_under_a_key_in_doubt_is_refused_as_such(server: Server) -> None:
    server.ask("raise", "a", amount=1)
    assert server.ask("raise", "a", amount=2).word == "key-reused"


def test_current_is_an_error_that_says_why(serve: Callable[..., Server]) -> None:
    server = serve(effects="elsewhere")
    server.script.elsewhere = False
    answer = server.ask("ok", "a")
    assert answer.code == "UNKNOWN"
    assert "effects='elsewhere'" in answer.details


def test_rerun_runs_the_handler_again_with_the_key(serve: Callable[..., Server]) -> None:
    server = serve(effects="elsewhere", on_doubt="rerun")
    assert server.ask("raise", "a").code == "UNKNOWN"
    assert server.ask("raise", "a").code == "UNKNOWN"
    assert server.script.runs["a"] == 2
    keys = server.database.keys
    assert server.database.execute(f"SELECT count(*) FROM {keys}")[0][0] == 1  # noqa: S608 - ours


def test_of_two_calls_that_both_ran_the_one_that_took_over_answers_both(
    serve: Callable[..., Server],
) -> None:
    server = serve(effects="elsewhere", on_doubt="rerun")
    first = server.start("slow", "a")
    assert server.script.begun.wait(20)
    keys = server.database.keys
    server.database.execute(f"UPDATE {keys} SET lease_until_ms = 1")  # noqa: S608 - ours
    second = server.start("slow", "a")
    server.script.wait_for_runs("a", 2)
    server.script.go_on.set()
    answer = seen(second)
    assert answer.code == "OK"
    # The first has lost its claim. Its own reply is never given, whichever ends first.
    assert seen(first).word == "in-progress" or seen(first).told == answer.told
    assert server.ask("slow", "a").told == answer.told


class Asked:
    """A user's function for doubts.

    Attributes:
        found: what it returns.
        calls: what it was given.
    """

    def __init__(self, place: Place, found: Callable[[Any], Any]) -> None:
        self.found = found
        self.calls: list[tuple[str, str]] = []
        self.function: Any = self._aio if place.aio else self._sync

    def _sync(self, key: str, request: Any, context: Any) -> Any:
        self.calls.append((key, request.reference))
        return self.found(context)

    async def _aio(self, key: str, request: Any, context: Any) -> Any:
        self.calls.append((key, request.reference))
        found = self.found(context)
        return await found if hasattr(found, "__await__") else found


def test_a_function_that_finds_the_work_answers_for_good(
    serve: Callable[..., Server], place: Place
) -> None:
    asked = Asked(place, lambda context: ChargeReply(charge_id="found"))
    server = serve(effects="elsewhere", on_doubt=asked.function)
    server.ask("raise", "a", key="k")
    answer = server.ask("raise", "a", key="k")
    assert ChargeReply.FromString(answer.reply).charge_id == "found"
    assert server.ask("raise", "a", key="k").reply == answer.reply
    assert asked.calls == [("k", "a")]
    assert server.script.runs["a"] == 1


def test_a_function_that_finds_nothing_has_the_handler_run(
    serve: Callable[..., Server], place: Place
) -> None:
    asked = Asked(place, lambda context: None)
    server = serve(effects="elsewhere", on_doubt=asked.function)
    server.ask("raise", "a")
    assert server.ask("raise", "a").code == "UNKNOWN"
    assert server.script.runs["a"] == 2


@pytest.mark.parametrize("how", ["raises", "aborts"])
def test_a_function_that_fails_leaves_the_doubt_as_it_is(
    serve: Callable[..., Server], place: Place, how: str
) -> None:
    def fail(context: Any) -> Any:
        if how == "aborts":
            return context.abort(grpc.StatusCode.UNAVAILABLE, "ask later")
        raise ValueError("a bug")

    asked = Asked(place, fail)
    server = serve(effects="elsewhere", on_doubt=asked.function)
    server.ask("raise", "a")
    for times in (1, 2):
        answer = server.ask("raise", "a")
        assert answer.code == ("UNAVAILABLE" if how == "aborts" else "UNKNOWN")
        assert len(asked.calls) == times
    assert server.script.runs["a"] == 1


def test_without_a_key_nothing_is_recorded(server: Server) -> None:
    assert server.ask("ok", "a", key=None).code == "OK"
    assert server.ask("raise", "a", key=None).code == "UNKNOWN"
    assert server.effects("a") == 2
    assert server.database.records() == 0
