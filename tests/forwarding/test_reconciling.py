"""What becomes of dead calls that may have been made, once a server has said what it knows."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message, RabbitMQBroker, Topology, open_broker
from fusewire.errors import DeliveryLostError, FusewireError
from fusewire.forwarding._call import StoredCall
from fusewire.forwarding._reconciling import (
    Deed,
    DoubtfulCall,
    Reconciled,
    Reconciling,
    decide,
    read_doubtful,
)
from fusewire.forwarding._server_word import ServerWord
from fusewire.parking._history import History
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from fusewire.brokers import Broker

CHARGE = "/payments.v1.Payments/Charge"
NOW = int(time.time() * 1000)


def dead(operation: str, reason: str = "ambiguous", **fields: Any) -> Message:
    """Return a dead call."""
    call = StoredCall(operation_id=operation, method=CHARGE, request=b"a request")
    history = History(
        operation_id=operation, queue="charges", reason=reason, first_parked_at_ms=NOW
    )
    return dataclasses.replace(history, **fields).to_headers(call.message("charges"))


def call_of(message: Message) -> DoubtfulCall:
    call = read_doubtful(message)
    assert call is not None
    return call


@pytest.mark.parametrize("reason", ["ambiguous", "in-doubt", "stale-key"])
def test_a_dead_call_that_may_have_been_made_is_asked_about_by_its_key(reason: str) -> None:
    call = call_of(dead("a", reason))
    assert (call.method, call.key, call.first_sent_ms) == (CHARGE, "a", NOW)


def test_the_time_of_the_first_sending_counts_where_it_is_known() -> None:
    sent = call_of(dead("a", first_parked_at_ms=NOW - 5, first_sent_ms=NOW - 1))
    assert sent.first_sent_ms == NOW - 1
    guessed = call_of(dead("a", first_parked_at_ms=NOW, first_failed_at_ms=NOW - 7))
    assert guessed.first_sent_ms == NOW - 7


@pytest.mark.parametrize("reason", ["refused", "expired", "exhausted", "malformed", ""])
def test_no_other_dead_message_is_asked_about(reason: str) -> None:
    assert read_doubtful(dead("a", reason)) is None


def test_what_is_no_call_is_not_asked_about() -> None:
    assert read_doubtful(Message(body=b"an order", message_id="a")) is None
    history = History(operation_id="a", reason="ambiguous")
    assert read_doubtful(history.to_headers(Message(body=b"an order"))) is None
    assert read_doubtful(dataclasses.replace(dead("a"), type="Charge")) is None


WORDS = {
    ServerWord.MADE: Deed.REMOVE,
    ServerWord.CANCELLED: Deed.REMOVE,
    ServerWord.REFUSED: Deed.MARK,
    ServerWord.NOT_MADE: Deed.PUT_BACK,
    ServerWord.IN_PROGRESS: Deed.LEAVE,
    ServerWord.IN_DOUBT: Deed.LEAVE,
    ServerWord.STALE: Deed.LEAVE,
    ServerWord.NOT_RECORDED: Deed.LEAVE,
    ServerWord.DENIED: Deed.LEAVE,
    ServerWord.NO_ANSWER: Deed.LEAVE,
}


@pytest.mark.parametrize("word", ServerWord)
def test_each_word_of_the_server_has_its_deed(word: ServerWord) -> None:
    end = decide(call_of(dead("a")), word, now_ms=NOW, awaited=False)
    assert end.deed is WORDS[word]
    assert bool(end.why) is (end.deed is Deed.LEAVE)


def test_a_call_is_not_put_back_if_nobody_knows_when_it_was_sent_first() -> None:
    unknown = call_of(dead("a", first_parked_at_ms=None))
    assert decide(unknown, ServerWord.NOT_MADE, now_ms=NOW, awaited=False).deed is Deed.LEAVE
    assert decide(unknown, ServerWord.MADE, now_ms=NOW, awaited=False).deed is Deed.REMOVE


def test_a_call_whose_time_is_over_is_not_put_back() -> None:
    over = call_of(dead("a", not_after_ms=NOW - 1))
    assert decide(over, ServerWord.NOT_MADE, now_ms=NOW, awaited=False).deed is Deed.LEAVE


@pytest.mark.parametrize("word", ServerWord)
def test_an_answer_that_somebody_waits_for_is_fetched_by_the_forwarder(word: ServerWord) -> None:
    end = decide(call_of(dead("a", not_after_ms=NOW - 1)), word, now_ms=NOW, awaited=True)
    answered = word in (ServerWord.MADE, ServerWord.REFUSED, ServerWord.CANCELLED)
    assert end.deed is (Deed.PUT_BACK if answered else Deed.LEAVE)
    unknown = call_of(dead("a", first_parked_at_ms=None))
    assert decide(unknown, word, now_ms=NOW, awaited=True).deed is Deed.LEAVE


@pytest.fixture(params=["memory", "sqlite", "rabbitmq"])
async def broker(
    request: pytest.FixtureRequest, tmp_path: Path, queue_name: str
) -> AsyncIterator[Broker]:
    address = {
        "memory": lambda: f"memory://{queue_name}",
        "sqlite": lambda: f"sqlite:///{tmp_path}/broker.db",
        "rabbitmq": lambda: request.getfixturevalue("amqp_url"),
    }[request.param]()
    async with open_broker(address) as opened:
        await opened.create_queue(queue_name)
        yield opened


class Desk:
    """A dead queue that is reconciled, and a server that says what it is told to.

    Attributes:
        words: what the server says, by operation id.
        ends: what became of each call.
    """

    def __init__(self, broker: Broker, queue: str) -> None:
        self.broker = broker
        self.topology = Topology(queue)
        self.words: dict[str, ServerWord | Exception] = {}
        self.ends: list[Reconciled] = []

    async def bury(self, *messages: Message) -> None:
        await self.broker.prepare(self.topology)
        for message in messages:
            await self.broker.publish(self.topology.dead, message)
        await until(lambda: self.holds(self.topology.dead, len(messages)))

    async def holds(self, station: Any, count: int) -> bool:
        return await self.broker.depth(station) == count

    async def ask(self, call: DoubtfulCall) -> ServerWord:
        await asyncio.sleep(0)
        word = self.words[call.history.operation_id]
        if isinstance(word, Exception):
            raise word
        return word

    async def reconcile(self, *, dry_run: bool = False) -> None:
        patience = 2.0 if isinstance(self.broker, RabbitMQBroker) else 0.3
        await Reconciling(
            self.broker,
            self.topology,
            self.ask,
            self.ends.append,
            dry_run=dry_run,
            patience=patience,
        ).run()

    async def stays(self, *operations: str) -> list[Message]:
        """Wait until only these are dead, in any order, and return them."""
        dead = self.topology.dead
        await until(lambda: self.holds(dead, len(operations)))
        messages = await self.broker.peek(dead, limit=100)
        assert sorted(str(message.message_id) for message in messages) == sorted(operations)
        return messages

    async def waits(self) -> list[Message]:
        return await self.broker.peek(self.topology.parked("other"), limit=100)


@pytest.fixture
def desk(broker: Broker, queue_name: str, forget_queue: Callable[[str], None]) -> Desk:
    for station in Topology(queue_name).stations:
        forget_queue(str(station))
    for delay in (1000, 5000, 30000, 120000, 600000):
        forget_queue(f"{queue_name}.delay.{delay}")
    return Desk(broker, queue_name)


async def test_a_dead_queue_is_cleared_up(desk: Desk) -> None:
    desk.words = {
        "a": ServerWord.MADE,
        "b": ServerWord.NOT_MADE,
        "c": ServerWord.REFUSED,
        "d": ServerWord.IN_DOUBT,
    }
    others = [dead("e", "malformed"), Message(body=b"not a call", message_id="f")]
    await desk.bury(*(dead(each, attempts=3, at_most_once=True) for each in desk.words), *others)
    await desk.reconcile()
    assert {end.call.history.operation_id: end.deed for end in desk.ends} == {
        "a": Deed.REMOVE,
        "b": Deed.PUT_BACK,
        "c": Deed.MARK,
        "d": Deed.LEAVE,
    }
    stays = {str(message.message_id): message for message in await desk.stays("c", "d", "e", "f")}
    assert stays["c"].headers["fusewire-reason"] == "refused"
    assert stays["f"].body == b"not a call"
    (back,) = await desk.waits()
    assert back.headers["fusewire-reason"] == "reconciled"
    assert "fusewire-attempts" not in back.headers
    assert back.headers["fusewire-at-most-once"] is True
    assert (back.body, back.type) == (b"a request", CHARGE)
    # What is marked or put back is not asked about again.
    desk.ends.clear()
    await desk.reconcile()
    assert [end.call.history.operation_id for end in desk.ends] == ["d"]


@pytest.mark.parametrize("broker", ["memory", "sqlite"], indirect=True)
async def test_where_outcomes_are_kept_answered_calls_are_put_back(desk: Desk) -> None:
    desk.words = {"a": ServerWord.MADE, "b": ServerWord.NOT_MADE}
    await desk.broker.create_queue(f"{desk.topology.source}.replies")
    await desk.bury(*(dead(each, not_after_ms=NOW + 10**6) for each in desk.words))
    await desk.reconcile()
    waits = {str(message.message_id): message.headers for message in await desk.waits()}
    assert {headers["fusewire-first-sent-ms"] for headers in waits.values()} == {NOW}
    assert "fusewire-not-after-ms" not in waits["a"]
    assert waits["b"]["fusewire-not-after-ms"] == NOW + 10**6
    await desk.stays()


async def test_a_dry_run_says_what_would_be_done_and_changes_nothing(desk: Desk) -> None:
    desk.words = {"a": ServerWord.MADE, "b": ServerWord.NOT_MADE, "c": ServerWord.REFUSED}
    await desk.bury(*map(dead, desk.words))
    await desk.reconcile(dry_run=True)
    assert {end.deed for end in desk.ends} == {Deed.REMOVE, Deed.PUT_BACK, Deed.MARK}
    await desk.stays("a", "b", "c")
    assert await desk.waits() == []


async def test_a_server_that_cannot_be_asked_ends_it_and_nothing_is_lost(desk: Desk) -> None:
    desk.words = {f"{number}": ServerWord.IN_DOUBT for number in range(20)}
    desk.words["7"] = FusewireError("no such service")
    await desk.bury(*map(dead, desk.words))
    with pytest.raises(FusewireError, match="no such service"):
        await desk.reconcile()
    await desk.stays(*desk.words)


@pytest.mark.parametrize("broker", ["memory"], indirect=True)
async def test_a_call_that_is_cut_off_on_its_way_back_is_never_nowhere(desk: Desk) -> None:
    desk.words = {"a": ServerWord.NOT_MADE}
    await desk.bury(dead("a"))
    subscribe = desk.broker.subscribe

    async def losing(station: Any, *, prefetch: int) -> Any:
        subscription = await subscribe(station, prefetch=prefetch)
        receive = subscription.receive

        async def received() -> Any:
            delivery = await receive()

            async def lost(to: Any, message: Message, *, delay: float = 0.0) -> None:
                await desk.broker.publish(to, message, delay=delay)
                raise DeliveryLostError("as after a kill between the two")

            delivery.move = lost
            return delivery

        subscription.receive = received
        return subscription

    desk.broker.subscribe = losing
    with pytest.raises(DeliveryLostError):
        await desk.reconcile()
    desk.broker.subscribe = subscribe
    await desk.stays("a")
    assert len(await desk.waits()) == 1
