"""What listeners hear of a message: every figure is that of the message and its attempt."""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest

from fusewire.brokers import Topology
from fusewire.parking import MessageEvent, MessageOutcome, Reject, Retry
from fusewire.parking import _settlements as settlements_module
from fusewire.parking._decisions import Dead, Delay, Done, Park, Verdict
from fusewire.parking._events import Listeners
from fusewire.parking._history import History
from fusewire.parking._in_flight import InFlight
from fusewire.parking._settlements import Settlements
from tests.support.dependency import Dependency
from tests.support.logs import read_log
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench

SQLITE = pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
CARD = "4111 1111 1111 1111"
TOPOLOGY = Topology("orders", ("money",))
FRESH = History(operation_id="a", queue="orders")


class UnavailableError(Exception):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE


def item_of(history: History, *, lane: str = "", since: float = 0.0) -> InFlight:
    receiver = SimpleNamespace(lane=lane)
    unused = cast("Any", None)
    return InFlight(unused, history, unused, since, cast("Any", receiver))


def event_of(item: InFlight, verdict: Verdict) -> MessageEvent:
    heard: list[MessageEvent] = []
    settlements = Settlements(
        TOPOLOGY, {"pay": "money"}.__getitem__, monotonic=lambda: 50.0, now=lambda: 1000.0
    )
    settlements.listeners.add(heard.append)
    settlements.settled(item, verdict)
    (event,) = heard
    return event


PARKED = dataclasses.replace(FRESH, times_parked=2, first_parked_at_ms=900_500, dependency="pay")


@pytest.mark.parametrize(
    ("history", "verdict", "outcome"),
    [
        (FRESH, Done(), MessageOutcome.HANDLED),
        (PARKED, Done(), MessageOutcome.REPLAYED),
        (FRESH, Park(PARKED), MessageOutcome.PARKED),
        (FRESH, Delay(dataclasses.replace(FRESH, attempts=1), 5), MessageOutcome.DELAYED),
        (FRESH, Delay(dataclasses.replace(FRESH, times_postponed=1), 5), MessageOutcome.POSTPONED),
        (FRESH, Dead(FRESH), MessageOutcome.DEAD),
    ],
)
def test_the_outcome_says_what_became_of_it(
    history: History, verdict: Verdict, outcome: MessageOutcome
) -> None:
    assert event_of(item_of(history), verdict).outcome is outcome


def test_times_come_of_one_clock_each_and_a_wait_is_that_of_the_monotonic_one() -> None:
    event = event_of(item_of(PARKED, since=47.5), Done())
    assert (event.first_parked_at, event.taken_at, event.ended_at) == (900.5, 997.5, 1000.0)


def test_the_lane_is_the_one_it_is_parked_in_or_else_the_one_it_came_from() -> None:
    assert event_of(item_of(FRESH, lane="other"), Park(PARKED)).lane == "money"
    assert event_of(item_of(PARKED, lane="money"), Done()).lane == "money"
    assert event_of(item_of(FRESH), Done()).lane == ""


def test_what_was_handled_in_the_end_has_no_error() -> None:
    item = item_of(dataclasses.replace(FRESH, exception="shop.Error"))
    item.status = "UNAVAILABLE"
    event = event_of(item, Done())
    assert (event.error_type, event.error_status) == ("", "")


def test_no_event_is_made_while_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: object, **__: object) -> MessageEvent:
        raise AssertionError("made for nobody")

    monkeypatch.setattr(settlements_module, "MessageEvent", make)
    settlements = Settlements(TOPOLOGY, lambda _: "money")
    doubtful = dataclasses.replace(FRESH, doubtful_keys="k")
    settlements.settled(item_of(doubtful), Done())
    settlements.settled(item_of(FRESH), Park(PARKED))


async def test_a_message_that_was_parked_and_replayed(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    began = time.time()
    await bench.send("a")
    async with bench.consumer(dependency, depends_on="payments"):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    parked, replayed = bench.events
    assert (parked.lane, parked.reason, parked.duration) == ("payments", "circuit_open", None)
    assert (parked.times_parked, parked.error_type) == (1, "")
    assert (replayed.lane, replayed.times_parked) == ("payments", 1)
    assert replayed.duration is not None
    assert replayed.duration >= 0
    assert parked.first_parked_at is not None
    assert replayed.first_parked_at == parked.first_parked_at >= began - 0.001  # whole milliseconds
    assert parked.taken_at is not None
    assert replayed.taken_at is not None
    assert parked.taken_at <= parked.ended_at <= replayed.ended_at
    assert replayed.taken_at <= replayed.ended_at


@SQLITE
async def test_a_failure_is_named_by_type_and_status_and_never_by_its_text(bench: Bench) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        raise ValueError(CARD) from UnavailableError(CARD)

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: bench.happened("dead") == ["a"])
    delayed, dead = bench.events
    assert (delayed.outcome, delayed.attempts, dead.attempts) == (MessageOutcome.DELAYED, 1, 2)
    assert (dead.reason, dead.error_type, dead.error_status) == (
        "exhausted",
        "ValueError",
        "UNAVAILABLE",
    )
    assert CARD not in repr(bench.events)


@SQLITE
@pytest.mark.parametrize("instruction", [Reject, Retry])
async def test_an_instruction_is_named_by_its_cause(
    bench: Bench, instruction: type[Exception]
) -> None:
    async def handler(_: AbstractIncomingMessage) -> None:
        error = Retry(after=600) if instruction is Retry else Reject("no")
        raise error from UnavailableError(CARD)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bool(bench.events))
    (event,) = bench.events
    assert event.error_type == f"{__name__}.UnavailableError"
    assert event.error_status == "UNAVAILABLE"
    assert event.duration is not None


@SQLITE
async def test_a_message_that_cannot_be_read_has_an_error_and_no_duration(bench: Bench) -> None:
    await bench.send("a", headers={"fusewire-format": 99})
    async with bench.consumer(lambda message: None):
        await until(lambda: bench.happened("dead") == ["a"])
    (event,) = bench.events
    assert (event.reason, event.duration) == ("malformed", None)
    assert event.error_type == "fusewire.parking.MalformedMessageError"


def test_a_listener_that_is_added_twice_hears_twice_and_each_removal_is_of_one() -> None:
    heard: list[MessageEvent] = []
    listeners = Listeners()
    first, second = listeners.add(heard.append), listeners.add(heard.append)
    event = MessageEvent(MessageOutcome.HANDLED, "a", "orders")
    listeners.tell(event)
    assert len(heard) == 2
    first()
    first()
    listeners.tell(event)
    assert len(heard) == 3
    second()
    assert not listeners


def test_a_listener_that_always_raises_is_logged_once() -> None:
    def broken(_: MessageEvent) -> None:
        raise ValueError("no metrics")

    listeners = Listeners()
    listeners.add(broken)
    with read_log() as log:
        for _ in range(100):
            listeners.tell(MessageEvent(MessageOutcome.HANDLED, "a", "orders"))
    (logged,) = log.records()
    assert "a listener of messages raised" in logged["message"]
