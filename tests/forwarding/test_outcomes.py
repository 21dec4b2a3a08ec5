"""What became of a queued call finds its way home, once it is final, to each who asks."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.brokers import Message, Station, open_broker
from fusewire.brokers.sqlite._subscription import SQLiteDelivery
from fusewire.errors import BrokerUnavailableError, QueueNotFoundError
from fusewire.forwarding import (
    CallStatus,
    Outcome,
    OutcomeKind,
    ParkedCalls,
    ParkPolicy,
)
from fusewire.interceptors import guard
from fusewire.parking import RetryPolicy
from fusewire.testing import InMemoryBroker
from tests.forwarding.conftest import CHARGE
from tests.forwarding.encrypting import RIGHT
from tests.forwarding.shop import aio_shop, pending, recover, trip
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from fusewire.breaker import BreakerRegistry
    from tests.forwarding.conftest import PaymentsServer
    from tests.forwarding.shop import AioShop

QUICK = RetryPolicy(delays=(0.05, 0.1), max_attempts=4)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


def reading(into: list[Outcome], **more: Any) -> dict[str, Any]:
    """Return the arguments of a ParkedCalls that reads outcomes."""

    async def on_outcome(outcome: Outcome) -> None:
        into.append(outcome)

    return {"on_outcome": on_outcome, "outcome_retry": QUICK, **more}


async def park(shop: AioShop, registry: BreakerRegistry, *ids: str, **options: Any) -> None:
    trip(registry)
    for each in ids:
        await shop.charge(f"request of {each}", each, **options)
    registry.get(CHARGE).reset()


async def depth(address: str, queue: str) -> int:
    async with open_broker(address) as broker:
        return await broker.depth(queue)


# -- final outcomes --------------------------------------------------------------------------------


async def test_the_reply_of_a_replayed_call_comes_home(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    async with aio_shop(address, queue_name, server, registry, calls=reading(outcomes)) as shop:
        await park(shop, registry, "op-a")
        await until(lambda: outcomes)
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert outcomes == [
        Outcome(
            operation_id="op-a",
            method=CHARGE,
            kind=OutcomeKind.OK,
            final=True,
            reply=b"charged:op-a",
            status=CallStatus(grpc.StatusCode.OK),
            request=b"request of op-a",
        )
    ]


async def test_a_refusal_comes_home_and_is_no_alarm(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    server.answer = lambda key: grpc.StatusCode.FAILED_PRECONDITION
    async with aio_shop(address, queue_name, server, registry, calls=reading(outcomes)) as shop:
        await park(shop, registry, "op-a")
        await until(lambda: outcomes)
        await until(lambda: shop.happened("answered") == ["op-a"])
        assert shop.happened("dead") == []
        assert await shop.dead(address) == []
    (outcome,) = outcomes
    assert (outcome.kind, outcome.final, outcome.reply) == (OutcomeKind.REFUSED, True, None)
    assert outcome.status == CallStatus(grpc.StatusCode.FAILED_PRECONDITION, "as told")


async def test_a_call_whose_time_was_over_before_it_was_sent_comes_home_as_expired(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    async with aio_shop(
        file, queue_name, server, registry, calls=reading(outcomes), expires_after=0.001
    ) as shop:
        await park(shop, registry, "op-a")
        await until(lambda: outcomes)
        assert await shop.dead(file) == []
    (outcome,) = outcomes
    assert (outcome.kind, outcome.final, outcome.status) == (OutcomeKind.EXPIRED, True, None)
    assert server.seen == []


async def test_a_call_whose_key_was_cancelled_comes_home_as_cancelled(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    server.answer = lambda key: grpc.StatusCode.FAILED_PRECONDITION
    server.trailing = (("fusewire-idempotency", "cancelled"),)
    async with aio_shop(file, queue_name, server, registry, calls=reading(outcomes)) as shop:
        await park(shop, registry, "op-a")
        await until(lambda: outcomes)
        assert await shop.dead(file) == []
    assert [(one.kind, one.final) for one in outcomes] == [(OutcomeKind.CANCELLED, True)]


async def test_a_status_that_means_made_is_ok_without_a_reply(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    server.answer = lambda key: grpc.StatusCode.ALREADY_EXISTS
    exists = {grpc.StatusCode.ALREADY_EXISTS}
    policy = ParkPolicy(reply=pending, idempotent=True, done_on=exists)
    async with aio_shop(
        file, queue_name, server, registry, calls=reading(outcomes), policy=policy
    ) as shop:
        await park(shop, registry, "op-a")
        await until(lambda: outcomes)
    (outcome,) = outcomes
    assert (outcome.kind, outcome.reply) == (OutcomeKind.OK, None)
    assert outcome.status is not None
    assert outcome.status.code is grpc.StatusCode.ALREADY_EXISTS


# -- what a person decides -------------------------------------------------------------------------


async def test_a_call_that_failed_too_often_is_dead_and_a_notice_comes_home(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    server.answer = lambda key: grpc.StatusCode.INTERNAL
    async with aio_shop(
        address, queue_name, server, registry, calls=reading(outcomes), max_attempts=1
    ) as shop:
        await park(shop, registry, "op-a")
        await until(lambda: shop.happened("dead") == ["op-a"])
        await until(lambda: outcomes)
        (dead,) = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == "exhausted"
    assert [(one.operation_id, one.kind, one.final) for one in outcomes] == [
        ("op-a", OutcomeKind.EXHAUSTED, False)
    ]


async def test_a_call_whose_time_is_over_and_that_may_have_been_sent_is_ambiguous(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    async with aio_shop(
        file, queue_name, server, registry, calls=reading(outcomes), expires_after=0.001
    ) as shop:
        await park(shop, registry, "op-a", metadata=(("fusewire-first-sent-ms", "1"),))
        await until(lambda: outcomes)
        await until(lambda: shop.happened("dead") == ["op-a"])
        (dead,) = await shop.dead(file)
    assert dead.headers["fusewire-reason"] == "ambiguous"
    assert [(one.kind, one.final) for one in outcomes] == [(OutcomeKind.AMBIGUOUS, False)]


async def test_a_call_that_cannot_be_read_is_dead_and_a_notice_comes_home(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    async with aio_shop(file, queue_name, server, registry, calls=reading(outcomes)) as shop:
        async with open_broker(file) as broker:
            foreign = Message(body=b"not a call", message_id="m-1")
            await broker.publish(shop.calls.topology.parked("other"), foreign)
        await until(lambda: outcomes)
        await until(lambda: shop.happened("dead") == ["m-1"])
    assert outcomes == [
        Outcome(operation_id="m-1", method="", kind=OutcomeKind.MALFORMED, final=False)
    ]


async def test_what_is_settled_before_a_handler_runs_comes_home_too(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    async with aio_shop(
        file,
        queue_name,
        server,
        registry,
        calls=reading(outcomes),
        forward=False,
        at_most_once=True,
    ) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        async with open_broker(file) as broker:
            lane = await broker.subscribe(shop.calls.topology.parked("other"), prefetch=1)
            await lane.receive()
            await lane.release()  # as when a forwarder dies
        recover(registry)
        shop.forward()
        await until(lambda: outcomes)
    assert [(one.kind, one.final) for one in outcomes] == [(OutcomeKind.AMBIGUOUS, False)]
    assert server.seen == []


async def test_death_between_the_two_publishes_leaves_a_notice_and_then_a_final_outcome(
    file: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes: list[Outcome] = []
    tried = asyncio.Event()
    move = SQLiteDelivery.move

    async def fail(self: Any, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        if Station.of(to).kind == "dead":
            if moves.append(to) or len(moves) > 2:
                tried.set()
            raise BrokerUnavailableError("the broker is away")
        await move(self, to, message, delay=delay)

    moves: list[object] = []
    server.answer = lambda key: grpc.StatusCode.INTERNAL
    with monkeypatch.context() as patch:
        patch.setattr(SQLiteDelivery, "move", fail)
        async with aio_shop(
            file, queue_name, server, registry, calls=reading(outcomes), max_attempts=1
        ) as shop:
            await park(shop, registry, "op-a")
            await tried.wait()
            await until(lambda: outcomes)
    server.answer = lambda key: None
    registry.get(CHARGE).reset()
    async with aio_shop(file, queue_name, server, registry, calls=reading(outcomes)) as shop:
        await until(lambda: shop.happened("replayed") == ["op-a"])
        await until(lambda: len(outcomes) >= 2)
        assert await shop.dead(file) == []
    assert [(one.kind.value, one.final) for one in outcomes] == [
        ("exhausted", False),  # once, although the move to the dead queue was tried again
        ("ok", True),
    ]


# -- who asks --------------------------------------------------------------------------------------


async def test_without_somebody_who_asks_there_is_no_queue_of_outcomes(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.NOT_FOUND
    async with aio_shop(file, queue_name, server, registry) as shop:
        await park(shop, registry, "op-a")
        await until(lambda: shop.happened("dead") == ["op-a"])
        (dead,) = await shop.dead(file)
    assert dead.headers["fusewire-reason"] == "refused"
    with pytest.raises(QueueNotFoundError):
        await depth(file, f"{queue_name}.replies")


@pytest.mark.parametrize("who", ["parks", "forwards"])
async def test_the_one_that_parks_or_the_one_that_forwards_asks(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry, who: str
) -> None:
    parking = {"outcomes": True} if who == "parks" else {}
    forwarding = {"outcomes": True} if who == "forwards" else {}
    async with aio_shop(file, queue_name, server, registry, forward=False, calls=parking) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
    recover(registry)
    async with aio_shop(file, queue_name, server, registry, calls=forwarding) as shop:
        await until(lambda: shop.happened("replayed") == ["op-a"])
    outcomes: list[Outcome] = []
    async with ParkedCalls(file, queue=queue_name, **reading(outcomes)):
        await until(lambda: outcomes)
    assert [(one.operation_id, one.reply) for one in outcomes] == [("op-a", b"charged:op-a")]


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_a_callback_that_fails_is_called_again_and_the_server_is_not(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry, kind: str
) -> None:
    called: list[tuple[str, bool]] = []

    def on_outcome(outcome: Outcome) -> None:
        in_loop = threading.current_thread() is threading.main_thread()
        called.append((outcome.operation_id, in_loop))
        if len(called) < 3:
            raise LookupError("the shop's database is away")

    async def on_outcome_async(outcome: Outcome) -> None:
        on_outcome(outcome)

    chosen = on_outcome_async if kind == "coroutine" else on_outcome
    options = {"on_outcome": chosen, "outcome_retry": QUICK}
    async with aio_shop(file, queue_name, server, registry, calls=options) as shop:
        await park(shop, registry, "op-a")
        await until(lambda: len(called) == 3)
        await asyncio.sleep(0)
    assert called == [("op-a", kind == "coroutine")] * 3
    assert len(server.seen) == 1


async def test_an_outcome_that_no_callback_takes_is_dead_in_its_own_queue(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    def on_outcome(outcome: Outcome) -> None:
        raise LookupError(outcome)

    once = RetryPolicy(delays=(0.05,), max_attempts=1)
    options = {"on_outcome": on_outcome, "outcome_retry": once}
    async with aio_shop(file, queue_name, server, registry, calls=options) as shop:
        await park(shop, registry, "op-a")
        await until(lambda: shop.happened("replayed") == ["op-a"])
        async with open_broker(file) as broker:

            async def dead() -> int:
                return await broker.depth(Station(f"{queue_name}.replies", "dead"))

            while await dead() != 1:  # noqa: ASYNC110 - a broker has no event; pytest limits it
                await asyncio.sleep(0.02)
    assert len(server.seen) == 1


async def test_outcomes_come_home_in_memory_too(
    queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    outcomes: list[Outcome] = []
    address = InMemoryBroker().address
    async with aio_shop(address, queue_name, server, registry, calls=reading(outcomes)) as shop:
        await park(shop, registry, "op-a", "op-b")
        await until(lambda: len(outcomes) == 2)
    assert {one.operation_id for one in outcomes} == {"op-a", "op-b"}


def test_a_program_without_asyncio_gets_outcomes(
    file: str, queue_name: str, server: PaymentsServer
) -> None:
    came = threading.Event()
    outcomes: list[Outcome] = []

    def on_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        came.set()

    methods = {CHARGE: ParkPolicy(idempotent=True)}
    with (
        ParkedCalls(file, queue=queue_name, methods=methods, on_outcome=on_outcome) as calls,
        guard(grpc.insecure_channel(server.target)) as channel,
        calls.forward_to(channel),
    ):
        calls.submit_sync(CHARGE, b"a", operation_id="op-a")
        assert came.wait(30)
    assert [one.reply for one in outcomes] == [b"charged:op-a"]


# -- encrypted -------------------------------------------------------------------------------------


async def test_outcomes_of_encrypted_calls_are_encrypted(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(
        file, queue_name, server, registry, encryption=RIGHT, calls={"outcomes": True}
    ) as shop:
        await park(shop, registry, "op-a")
        await until(lambda: shop.happened("replayed") == ["op-a"])
        async with open_broker(file) as broker:
            (stored,) = await broker.peek(f"{queue_name}.replies", limit=2)
    assert b"charged" not in stored.body
    assert "charged" not in str(stored.headers)
    outcomes: list[Outcome] = []
    async with ParkedCalls(file, queue=queue_name, encryption=RIGHT, **reading(outcomes)):
        await until(lambda: outcomes)
    assert [one.reply for one in outcomes] == [b"charged:op-a"]
