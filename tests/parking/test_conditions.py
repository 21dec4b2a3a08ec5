"""What no message is to blame for uses up no attempts: expired tokens, full servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message
from fusewire.operation import CallNote
from fusewire.parking import Reject, RetryPolicy, _pauses
from fusewire.parking._decisions import Dead, FailurePolicy, Park
from fusewire.parking._failures import Failure, failure_of
from fusewire.parking._handler import Attempt
from fusewire.parking._history import History
from tests.support.turning_away import PAYMENTS, Server, StatusError
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

CONDITIONS = ["unauthenticated", "permission_denied", "local", "refused"]
BODIES = [f"m{number}" for number in range(12)]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pauses, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(_pauses, "LONGEST_WAIT", 0.1)


async def park(bench: Bench, *bodies: str, **headers: Any) -> None:
    """Put messages into the lane of payments, as if an outage had."""
    lane = f"{bench.queue}.parked.{PAYMENTS}"
    await bench.broker.create_queue(lane)
    known = {"fusewire-times-parked": 1, "fusewire-dependency": PAYMENTS, **headers}
    for body in bodies:
        await bench.broker.publish(
            lane, Message(body=body.encode(), message_id=body, headers=known)
        )


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("declared", [PAYMENTS, None])
async def test_a_condition_kills_no_message_however_long_it_lasts(
    bench: Bench, server: Server, condition: str, declared: str | None
) -> None:
    server.condition = condition
    await bench.send(*BODIES)
    async with bench.consumer(
        server, depends_on=declared, max_attempts=1, concurrency=3, replay_concurrency=3
    ):
        # Replays of a server that refuses are few and far between.
        await until(lambda: len(server.calls) >= (6 if condition == "refused" else 15))
        server.condition = None
        await until(lambda: sorted(server.effects) == sorted(BODIES))
        await until(lambda: len(bench.happened("replayed") + bench.happened("handled")) == 12)
    assert bench.happened("dead") == []
    assert bench.happened("delayed") == []  # it goes to the lane at once, also from the source


async def test_a_backlog_that_is_turned_away_waits_and_is_tried_one_at_a_time(
    bench: Bench, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fusewire.parking")
    server.condition = "unauthenticated"
    await park(bench, *BODIES)
    async with bench.consumer(server, depends_on=PAYMENTS, max_attempts=1):
        await until(lambda: len(server.calls) >= 9)
        assert server.calls[:9] == BODIES[:9]  # a failed probe goes to the tail
        server.condition = None
        await until(lambda: len(bench.happened("replayed")) == 12)
    assert bench.happened("dead") == []
    said = [each.levelname for each in caplog.records if each.module == "_pauses"]
    assert said == ["WARNING", "INFO"]


async def test_to_new_messages_a_pause_is_an_open_circuit(
    bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pauses, "FIRST_WAIT", 60)
    server.condition = "unauthenticated"
    await bench.send("a", "b", "c")
    async with bench.consumer(server, depends_on=PAYMENTS):
        await until(lambda: len(bench.happened("parked")) == 3)
        await bench.send("d", "e")
        await until(lambda: len(bench.happened("parked")) == 5)
    assert sorted(server.calls) == ["a", "b", "c"]


async def test_one_message_that_is_turned_away_while_others_are_not_runs_out_of_attempts(
    bench: Bench, server: Server
) -> None:
    server.condition, server.status = "permission_denied", "PERMISSION_DENIED"
    server.turned_away = {"bad"}
    async with bench.consumer(server, depends_on=PAYMENTS, max_attempts=2):
        await bench.send("bad")
        number = 0
        while not bench.happened("dead"):
            await bench.send(f"good-{number}")
            number += 1
            handled = f"good-{number - 1}"
            await until(lambda handled=handled: handled in server.effects)
    assert bench.happened("dead") == ["bad"]
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "exhausted"
    assert dead.headers["fusewire-attempts"] == 2


async def test_a_message_alone_in_its_lane_is_not_tried_without_a_break(
    bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pauses, "FIRST_WAIT", 30)
    server.condition = "unauthenticated"
    await bench.send("a")
    async with bench.consumer(server, depends_on=PAYMENTS):
        await until(lambda: len(bench.happened("parked")) == 2)
        await bench.send("b")
        await until(lambda: len(bench.happened("parked")) == 3)
    assert server.calls == ["a", "a"]


@pytest.mark.parametrize(
    "error", [KeyError("a row is missing"), Reject("no such account")], ids=["raised", "rejected"]
)
async def test_a_lane_whose_replays_all_fail_alike_waits_and_keeps_its_messages(
    bench: Bench, error: Exception
) -> None:
    broken, effects = True, []

    async def handler(message: AbstractIncomingMessage) -> None:
        if broken:
            raise error
        effects.append(message.body.decode())

    bodies = [f"m{number:02}" for number in range(30)]
    await park(bench, *bodies)
    async with bench.consumer(handler, depends_on=PAYMENTS, max_attempts=2, replay_concurrency=4):
        await until(lambda: len(bench.happened("parked")) >= 8)  # failed probes, to the tail
        broken = False
        await until(lambda: len(bench.happened("replayed") + bench.happened("dead")) >= 30)
    assert len(bench.happened("dead")) < 10
    assert len(effects) > 20


async def test_what_fails_alone_still_runs_out_of_attempts_beside_others_that_wait(
    bench: Bench, server: Server
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body == b"poison":
            raise KeyError("poison")
        await server(message)

    server.condition = "unauthenticated"
    await park(bench, "a", "b", "poison", "c", "d")
    async with bench.consumer(handler, depends_on=PAYMENTS, max_attempts=2):
        await until(lambda: bench.happened("dead") == ["poison"])
        server.condition = None
        await until(lambda: len(bench.happened("replayed")) == 4)
    assert bench.happened("dead") == ["poison"]


@pytest.mark.parametrize("condition", ["unauthenticated", "permission_denied", "local"])
async def test_an_at_most_once_message_that_is_turned_away_stays_in_its_lane(
    bench: Bench, server: Server, condition: str
) -> None:
    server.condition = condition
    headers = {"fusewire-at-most-once": True}
    await park(bench, "a", "b", **headers)
    async with bench.consumer(server, depends_on=PAYMENTS, max_attempts=1):
        await until(lambda: len(server.calls) >= 4)
        server.condition = None
        await until(lambda: len(bench.happened("replayed")) == 2)
    assert sorted(server.effects) == ["a", "b"]
    assert bench.happened("dead") == []


async def test_an_at_most_once_message_of_a_full_server_is_in_doubt(
    bench: Bench, server: Server
) -> None:
    server.condition, server.status = "refused", "RESOURCE_EXHAUSTED"
    await park(bench, "a", **{"fusewire-at-most-once": True})
    async with bench.consumer(server, depends_on=PAYMENTS):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "ambiguous"
    assert server.calls == ["a"]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_pause_mode_keeps_its_order_while_a_token_is_expired(
    bench: Bench, server: Server, concurrency: int
) -> None:
    server.condition = "unauthenticated"

    async def handler(message: AbstractIncomingMessage) -> None:
        if len(server.calls) == 3:
            # Not whenever that is seen: each other probe is the second message, which would be
            # handled first then.
            server.condition = None
        await server(message)

    await bench.send(*BODIES)
    async with bench.consumer(
        handler, on_open="pause", concurrency=concurrency, depends_on=PAYMENTS, max_attempts=1
    ):
        await until(lambda: len(bench.happened("handled")) == 12)
    assert bench.happened("dead") == bench.happened("delayed") == bench.happened("parked") == []
    if concurrency == 1:
        assert server.effects == BODIES
    assert sorted(server.effects) == sorted(BODIES)


async def test_pause_mode_is_not_consumed_while_its_first_message_is_turned_away(
    bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pauses, "FIRST_WAIT", 60)
    server.condition = "refused"
    await bench.send("a", "b", "c")
    async with bench.consumer(server, on_open="pause", concurrency=2):

        async def at_rest() -> bool:
            return bool(server.calls) and await bench.broker.depth(bench.queue) == 3

        await until(at_rest)
    assert set(server.calls) <= {"a", "b"}  # begun together


def failed(*notes: CallNote, error: Exception, succeeded: tuple[str, ...] = ()) -> Failure:
    attempt = Attempt(error, notes=notes, succeeded=succeeded)
    return failure_of(attempt, History(operation_id="a"))


TURNED_AWAY = CallNote(PAYMENTS, "success", "UNAUTHENTICATED", None, "unauthenticated")
FULL = CallNote(PAYMENTS, "failure", "RESOURCE_EXHAUSTED", 2.0, "refused")
TOO_LARGE = CallNote(PAYMENTS, "ignored", "RESOURCE_EXHAUSTED", None, None)
CRASHED = CallNote(PAYMENTS, "failure", "UNAVAILABLE", None, None)


def test_an_attempt_fails_by_the_last_call_that_its_error_comes_from() -> None:
    away = StatusError("UNAUTHENTICATED")
    assert failed(TURNED_AWAY, error=away).condition == "unauthenticated"
    assert failed(TURNED_AWAY, error=ValueError()).condition == "unauthenticated"  # raised of it
    assert failed(FULL, TURNED_AWAY, error=StatusError("RESOURCE_EXHAUSTED")).condition == "refused"
    assert failed(TURNED_AWAY, error=StatusError("INTERNAL")) == Failure("", "INTERNAL")


def test_a_message_that_is_too_large_or_crashes_the_server_is_its_own_failure() -> None:
    size = failed(TOO_LARGE, error=StatusError("RESOURCE_EXHAUSTED"))
    assert size == Failure(PAYMENTS, "RESOURCE_EXHAUSTED")
    assert failed(CRASHED, error=StatusError("UNAVAILABLE")).condition is None


def test_what_a_handler_decides_is_no_condition() -> None:
    reject = Reject("no such account")
    reject.__cause__ = StatusError("UNAUTHENTICATED")
    assert failed(TURNED_AWAY, error=reject) == Failure(PAYMENTS, "UNAUTHENTICATED")


def test_a_call_before_the_last_may_have_taken_effect() -> None:
    away = StatusError("UNAUTHENTICATED")
    counted = CallNote(PAYMENTS, "failure", "UNAUTHENTICATED", None, "unauthenticated")
    assert failed(counted, error=away).without_effect  # whatever a user takes it for
    assert failed(TURNED_AWAY, error=away).without_effect
    assert not failed(CRASHED, TURNED_AWAY, error=away).without_effect
    assert not failed(TURNED_AWAY, error=away, succeeded=("stock",)).without_effect
    assert not failed(*[TURNED_AWAY] * 64, error=away).without_effect  # there may be more
    assert not failed(FULL, error=StatusError("RESOURCE_EXHAUSTED")).without_effect


def test_refusals_count_from_the_twentieth_on() -> None:
    policy = FailurePolicy(RetryPolicy(max_attempts=2, delays=(1.0,)), lambda: 1000)
    failure = failed(FULL, error=StatusError("RESOURCE_EXHAUSTED"))
    history = History(operation_id="a")
    for refusal in range(1, 21):
        verdict = policy.held(history, failure, None, wait=1, may_count=True)
        assert isinstance(verdict, Park)
        history = verdict.history
        assert (history.refusals, history.attempts) == (refusal, int(refusal == 20))
        # Only those that count have it rest: until then the pace of the replays is enough.
        assert history.reason == ("condition" if refusal == 20 else "busy")
    assert isinstance(policy.held(history, failure, None, wait=1, may_count=True), Dead)


async def test_an_at_most_once_message_whose_call_failed_before_a_refusal_is_in_doubt(
    bench: Bench,
) -> None:
    stock = bench.registry.get("stock")
    stock.force_open()

    async def handler(message: AbstractIncomingMessage) -> None:
        with contextlib.suppress(ConnectionError):
            bench.registry.get(PAYMENTS).call(fail)
        await stock.call_async(asyncio.sleep, 0)

    def fail() -> None:
        raise ConnectionError("it may have taken effect")

    await park(bench, "a", **{"fusewire-at-most-once": True})
    async with bench.consumer(handler, depends_on=PAYMENTS):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "ambiguous"
