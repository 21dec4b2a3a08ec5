"""The log through an outage: enough for the person who is woken up, and nothing that is secret."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message
from fusewire.errors import BrokerUnavailableError, DeliveryLostError, MoveRefusedError
from fusewire.parking import _lane_log as lane_log_module
from fusewire.parking import _status_watch as watch_module
from fusewire.parking._failure_log import FailureLog
from fusewire.parking._history import History
from fusewire.parking._pause_log import PauseLog
from fusewire.parking._status_watch import BrokerContact
from fusewire.testing import FakeClock
from tests.support.dependency import Dependency
from tests.support.logs import PIPELINES, read_log
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

SQLITE = pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
BODY, HEADER, ARGUMENT = "body-4111", "header-4111", "argument-4111"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_BEAT", 0.01)
    monkeypatch.setattr(watch_module, "_INTERVAL", 0.02)


@pytest.mark.parametrize("pipeline", PIPELINES)
async def test_an_outage_from_its_beginning_to_its_end(bench: Bench, pipeline: str) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    with read_log(pipeline, logger="fusewire.parking") as log:
        async with bench.consumer(dependency, depends_on="payments"):
            await bench.send("a", "b", "c")
            await until(lambda: len(bench.happened("parked")) == 3)
            dependency.recover()
            await until(lambda: len(bench.happened("replayed")) == 3)
            await until(lambda: bool(log.of("lane.drained")))
    (begins,) = log.of("lane.parking")
    assert begins == {
        "queue": bench.queue,
        "lane": "payments",
        "circuit": "payments",
        "reason": "circuit_open",
        "parked": 1,
    }
    (replays,) = log.of("lane.replaying")
    assert (replays["circuit"], replays["parked"]) == ("payments", 3)
    (drained,) = log.of("lane.drained")
    assert (drained["count"], drained["parked"], drained["dead"]) == (3, 3, 0)
    assert drained["seconds"] >= 0


@pytest.mark.parametrize("pipeline", PIPELINES)
async def test_a_message_that_is_dead(bench: Bench, pipeline: str) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        raise ConnectionError(ARGUMENT)

    await bench.send("a")
    with read_log(pipeline, logger="fusewire.parking") as log:
        async with bench.consumer(handler, max_attempts=2, depends_on="payments"):
            await until(lambda: bench.happened("dead") == ["a"])
    (failed,) = log.of("message.failed")
    assert (failed["operation_id"], failed["error_type"]) == ("a", "ConnectionError")
    assert "in handler" in log.text
    assert "Traceback" in log.text
    (dead,) = log.of("message.dead")
    assert dead == {
        "queue": bench.queue,
        "operation_id": "a",
        "reason": "exhausted",
        "error_type": "ConnectionError",
        "attempts": 2,
    }
    (line,) = [each for each in log.records() if each.get("fusewire_event") == "message.dead"]
    assert ARGUMENT not in str(line)


@SQLITE
async def test_nothing_of_a_message_is_logged_but_its_operation_id(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    message = Message(
        body=BODY.encode(),
        message_id="a",
        headers={"authorization": HEADER},
        reply_to=HEADER,
        correlation_id=HEADER,
    )
    tried: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        await dependency.breaker.call_async(work)

    async def work() -> None:
        tried.append("once")
        raise ValueError("a text of the handler's own")

    with read_log(logger="fusewire") as log:
        async with bench.consumer(handler, depends_on="payments", max_attempts=1):
            await bench.broker.publish(bench.queue, message)
            await until(lambda: bench.happened("parked") == ["a"])
            dependency.breaker.reset()
            await until(lambda: bench.happened("dead") == ["a"])
    assert tried
    assert "operation a" in log.text
    assert BODY not in log.text
    assert HEADER not in log.text


@SQLITE
async def test_a_broker_that_does_not_answer_is_one_line_and_its_return_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise BrokerUnavailableError("away")

    lanes = {f"lane-{number}": [f"dependency-{number}"] for number in range(5)}
    with read_log(logger="fusewire.parking") as log:
        async with bench.consumer(lambda message: None, lanes=lanes) as consumer:
            await until(lambda: consumer.status().ready is not None)
            with monkeypatch.context() as patch:
                for name in ("depth", "subscribe", "receivers"):
                    patch.setattr(type(bench.broker), name, away)
                await until(lambda: not consumer.status().connected)
                consumer._parts.contact.failed(BrokerUnavailableError("again"))
            await until(lambda: consumer.status().connected)
    loud = [each for each in log.records() if each["levelname"] == "WARNING"]
    assert [each["fusewire_event"] for each in loud] == ["broker.lost"], loud
    assert len(log.of("broker.back")) == 1


def test_what_the_broker_says_itself_is_not_said_again() -> None:
    contact = BrokerContact("orders", FakeClock())
    error = BrokerUnavailableError("away")
    error.logged = True
    with read_log() as log:
        contact.answered(contact.failures)
        contact.failed(error)
        contact.answered(contact.failures)
    assert log.records() == []


def test_a_broker_that_was_left_is_not_lost() -> None:
    contact = BrokerContact("orders", FakeClock())
    with read_log() as log:
        contact.answered(contact.failures)
        contact.left()
        contact.failed(BrokerUnavailableError("left"))
        contact.answered(contact.failures)
    assert log.records() == []


@SQLITE
@pytest.mark.parametrize("error", [MoveRefusedError("full"), DeliveryLostError("gone")])
async def test_many_that_cannot_be_settled_are_a_line_and_a_count(
    bench: Bench, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    with read_log(logger="fusewire.parking") as log:
        async with bench.consumer(lambda message: None) as consumer:
            settlements = consumer._parts.settlements
            monkeypatch.setattr(settlements._unsettled, "_monotonic", clock)
            item: Any = _Item()
            for _ in range(100):
                if isinstance(error, DeliveryLostError):
                    settlements.lost(item, error)
                else:
                    settlements.held(item, MoveRefusedError("full"), 900)
            clock.advance(61)
            await until(lambda: len(log.of("message.unsettled")) == 101)
    loud = [each for each in log.records() if each["levelname"] == "WARNING"]
    assert [each["fusewire_count"] for each in loud] == [1, 99]


class _Item:
    history = History(operation_id="a", queue="orders")


def test_first_failures_are_counted_once_a_minute_after_the_first() -> None:
    clock = FakeClock()
    failures = FailureLog("shop.on_order", clock)
    history = History(operation_id="a", queue="orders")

    def fail(times: int) -> None:
        for _ in range(times):
            try:
                raise ValueError(ARGUMENT)  # noqa: TRY301 - an error with a traceback
            except ValueError as error:
                failures.note(history, error)

    with read_log() as log:
        fail(5)
        failures.look()
        clock.advance(60)
        failures.look()
        fail(3)
        clock.advance(60)
        failures.look()
        clock.advance(60)
        failures.look()
        fail(1)
    counts = [each["count"] for each in log.of("message.failed")]
    assert counts == [1, 4, 3, 1]
    with_traceback = ["Traceback" in str(each) for each in log.records()]
    assert with_traceback == [True, False, False, True]
    assert "ValueError at test_logs.py:" in log.records()[1]["message"]


def test_a_pause_is_a_warning_then_a_line_a_minute_and_its_end() -> None:
    clock = FakeClock()
    pause = PauseLog("orders", clock)
    with read_log() as log:
        pause.resumed()
        for _ in range(125):
            pause.paused("payments")
            clock.advance(1)
        pause.resumed()
        pause.resumed()
        pause.paused("payments")
    levels = [each["levelname"] for each in log.records()]
    assert levels == ["WARNING", "INFO", "INFO", "INFO", "WARNING"]
    (resumed,) = log.of("consumer.resumed")
    assert resumed == {"queue": "orders", "seconds": 125}


async def test_a_consumer_that_pauses_through_many_probes_says_it_once(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.down = True
    await bench.send("a")
    with read_log(logger="fusewire.parking") as log:
        async with bench.consumer(
            dependency, depends_on="payments", on_open="pause", max_attempts=100
        ):
            await until(lambda: dependency.calls >= 4, "probes fail")
            dependency.down = False
            await until(lambda: bench.happened("handled") == ["a"])
    assert len(log.of("consumer.paused")) == 1
    assert len(log.of("consumer.resumed")) == 1


@SQLITE
async def test_how_many_wait_is_said_while_the_circuit_stays_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_log_module, "_SAY_AGAIN", 0.05)
    dependency = Dependency(bench.registry)
    dependency.trip()
    with read_log(logger="fusewire.parking") as log:
        async with bench.consumer(dependency, depends_on="payments"):
            await bench.send("a", "b")
            await until(
                lambda: [each.get("count") for each in log.of("lane.waiting")][-2:] == [2, 2]
            )
    waiting = log.of("lane.waiting")[-1]
    assert (waiting["parked"], waiting["replayed"], waiting["dead"]) == (2, 0, 0)
    assert log.records()[-1]["message"].startswith("when the consumer stops, 2 messages wait")


@SQLITE
async def test_what_waited_before_is_said_when_a_consumer_starts(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    await bench.send("a")
    async with bench.consumer(dependency, depends_on="payments"):
        await until(lambda: bench.happened("parked") == ["a"])
    with read_log(logger="fusewire.parking") as log:
        async with bench.consumer(dependency, depends_on="payments"):
            await until(lambda: bool(log.of("lane.waiting")))
    assert log.of("lane.waiting")[0]["count"] == 1


async def test_a_healthy_consumer_is_silent(bench: Bench) -> None:
    with read_log(logger="fusewire.parking") as log:
        async with bench.consumer(Dependency(bench.registry), depends_on="payments") as consumer:
            await bench.send("a", "b")
            await until(lambda: len(bench.happened("handled")) == 2)
            await until(lambda: consumer.status().lanes["payments"].ready is not None)
    worth = [
        each for each in log.records() if logging.getLevelName(each["levelname"]) >= logging.INFO
    ]
    assert [each for each in worth if "audit" not in each["message"]] == []


@SQLITE
async def test_what_was_only_counted_is_said_when_a_consumer_stops(bench: Bench) -> None:
    def handler(_: AbstractIncomingMessage) -> None:
        raise ValueError(ARGUMENT)

    with read_log(logger="fusewire.parking") as log:
        await bench.send(*(f"m{number}" for number in range(5)))
        async with bench.consumer(handler, max_attempts=1) as consumer:
            await until(lambda: len(bench.happened("dead")) == 5)
            item: Any = _Item()
            for _ in range(3):
                consumer._parts.settlements.held(item, MoveRefusedError("full"), 900)
    assert [each["count"] for each in log.of("message.failed")] == [1, 4]
    loud = [each for each in log.records() if each["levelname"] == "WARNING"]
    unsettled = [each for each in loud if each.get("fusewire_event") == "message.unsettled"]
    assert [each["fusewire_count"] for each in unsettled] == [1, 2]
