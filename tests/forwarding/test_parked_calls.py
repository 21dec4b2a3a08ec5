"""Payments asked for during an outage are made after it, on sync and on asyncio channels."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import Counter
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.brokers import Message, open_broker
from fusewire.forwarding import ParkedCalls, Receipt
from fusewire.parking import ReplayPolicy
from tests.forwarding.conftest import CHARGE, PaymentsServer
from tests.forwarding.shop import aio_shop, pending, recover, sync_shop, trip
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from fusewire.parking import MessageEvent


async def test_a_call_that_succeeds_is_answered_by_the_server(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry) as shop:
        assert await shop.charge("a", "op-a") == b"charged:op-a"
    assert shop.happened("parked") == []


async def test_calls_of_an_outage_are_answered_pending_and_made_once_after_it(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry) as shop:
        server.stop()
        replies = [await shop.charge(f"p{number}", f"op-{number}") for number in range(20)]
        assert replies == [b"pending:op-%d" % number for number in range(20)]
        server.start()
        await until(lambda: len(shop.happened("replayed")) >= 20)
    assert server.effects == {f"op-{number}": b"p%d" % number for number in range(20)}
    assert Counter(shop.happened("replayed")) == {f"op-{number}": 1 for number in range(20)}


async def test_its_replays_have_figures_once_it_forwards(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        assert shop.calls.replay_figures() == {}
        server.stop()
        for number in range(3):
            await shop.charge("a", f"op-{number}")
        server.start()
        shop.forward()
        await until(lambda: len(shop.happened("replayed")) == 3)
        figures = shop.calls.replay_figures()["other"]
    [name] = [name for name in figures if name]  # one has no name: it began before that was known
    assert name in registry
    assert figures[name].taking_part
    assert figures[name].in_flight == 0


async def test_the_operation_id_goes_out_with_the_first_attempt(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.UNAVAILABLE
    async with aio_shop(address, queue_name, server, registry) as shop:
        reply = await shop.charge("a")
        operation_id = reply.removeprefix(b"pending:").decode()
        assert server.seen[0][0] == operation_id
        server.answer = lambda key: None
        await until(lambda: shop.happened("replayed") == [operation_id])
    assert server.effects == {operation_id: b"a"}
    first, *_, last = shop.events
    assert (first.outcome, first.lane, first.times_parked) == ("parked", "other", 1)
    assert first.taken_at is None  # it is in no queue before it is parked
    assert (last.outcome, last.lane) == ("replayed", "other")
    assert last.first_parked_at == pytest.approx(first.first_parked_at, abs=0.001)
    assert last.duration is not None


async def test_the_reason_says_whether_a_call_failed_or_was_rejected(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.UNAVAILABLE
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        await shop.charge("a", "op-failed")
        trip(registry)
        await shop.charge("b", "op-rejected")
        parked = {event.operation_id: event.reason for event in shop.events}
        async with open_broker(address) as broker:
            lane = shop.calls.topology.parked("other")
            stored = {
                message.headers["fusewire-operation-id"]: message.headers["fusewire-reason"]
                for message in await broker.peek(lane, limit=10)
            }
    assert parked == stored == {"op-failed": "failed", "op-rejected": "circuit_open"}


async def test_a_call_that_took_effect_before_it_failed_is_not_made_twice(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    effects: Counter[str] = Counter()

    def answer(key: str) -> grpc.StatusCode | None:
        first = key not in server.effects
        if first:
            effects[key] += 1
            server.effects[key] = b"a"  # it took effect, and its reply is lost
            return grpc.StatusCode.UNAVAILABLE
        return None

    server.answer = answer
    async with aio_shop(address, queue_name, server, registry) as shop:
        assert await shop.charge("a", "op-a") == b"pending:op-a"
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert effects == {"op-a": 1}


async def test_a_fallbacks_reply_never_settles_a_parked_call(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry) as shop:
        server.stop()
        for number in range(6):
            await shop.charge("a", f"op-{number}")
        parked = set(shop.happened("parked"))  # of some a probe has failed already
        server.start()
        await until(lambda: shop.happened("replayed"))
        server.stop()  # it dies again during the replay
        await until(lambda: not registry.get(CHARGE).can_execute() or len(server.effects) == 6)
        server.start()
        await until(lambda: len(server.effects) == 6)
        await until(lambda: len(set(shop.happened("replayed"))) == 6)
    assert len(parked) == 6
    assert set(server.effects) == {f"op-{number}" for number in range(6)}


async def test_a_delayed_replay_is_not_settled_by_a_fallback_either(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
    server.answer = lambda key: grpc.StatusCode.UNAVAILABLE if len(server.seen) <= 2 else None
    patient = BreakerRegistry(BreakerSettings(failure_threshold=100))
    async with aio_shop(address, queue_name, server, patient) as shop:
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert shop.happened("delayed") == ["op-a", "op-a"]
    assert shop.happened("parked") == []
    assert server.effects == {"op-a": b"a"}


async def test_calls_stay_parked_when_their_channel_is_closed_under_the_forwarder(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    answer = threading.Event()

    def wait(key: str) -> None:
        answer.wait(60)

    server.answer = wait
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        for number in range(3):
            await shop.charge("a", f"op-{number}")
        recover(registry)
        shop.calls.forward_to(shop.channel)  # and not ended before the channel is
        await until(lambda: server.seen)
    answer.set()
    server.answer = lambda key: None
    async with aio_shop(address, queue_name, server, BreakerRegistry()) as shop:
        await until(lambda: len(shop.happened("replayed")) == 3)
        assert shop.happened("dead") == []
    assert set(server.effects) == {f"op-{number}" for number in range(3)}


async def test_a_replay_that_the_server_refuses_is_dead_and_seen(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.INVALID_ARGUMENT
    async with aio_shop(address, queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("dead") == ["op-a"])
        (dead,) = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == "refused"
    assert "INVALID_ARGUMENT" in str(dead.headers["fusewire-stack"]) or "INVALID_ARGUMENT" in str(
        dead.headers["fusewire-exception-message"]
    )


async def test_only_allowed_metadata_is_stored_and_replayed(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(
        address, queue_name, server, registry, metadata=["x-tenant"], forward=False
    ) as shop:
        trip(registry)
        await shop.charge(
            "a",
            "op-a",
            metadata=(("x-tenant", "blue"), ("authorization", "Bearer secret"), ("x-other", "1")),
        )
        async with open_broker(address) as broker:
            (stored,) = await broker.peek(shop.calls.topology.parked("other"), limit=5)
        assert "secret" not in repr(stored)
        recover(registry)
        shop.forward()
        await until(lambda: shop.happened("replayed") == ["op-a"])
    metadata = server.seen[-1][1]
    assert metadata["x-tenant"] == "blue"
    assert "x-other" not in metadata


async def test_a_call_is_parked_by_one_process_and_forwarded_by_another(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
    elsewhere = BreakerRegistry()
    async with aio_shop(address, queue_name, server, elsewhere) as shop:
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert server.effects == {"op-a": b"a"}


async def test_an_expired_call_is_dead_and_not_made(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(
        address, queue_name, server, registry, expires_after=0.001, forward=False
    ) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        shop.forward()
        await until(lambda: shop.happened("dead") == ["op-a"])
        (dead,) = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == "expired"
    assert server.seen == []


async def test_something_else_in_the_queue_is_dead_and_the_calls_go_on(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry) as shop:
        async with open_broker(address) as broker:
            await broker.publish(
                shop.calls.topology.parked("other"), Message(body=b"?", message_id="stray")
            )
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("replayed") == ["op-a"])
        await until(lambda: shop.happened("dead") == ["stray"])
        (dead,) = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == "malformed"


async def test_a_coroutine_function_may_make_the_reply(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async def reply(request: bytes, receipt: Receipt) -> bytes:
        await asyncio.sleep(0)
        return pending(request, receipt)

    async with aio_shop(address, queue_name, server, registry, reply=reply) as shop:
        trip(registry)
        assert await shop.charge("a", "op-a") == b"pending:op-a"


def replayed(events: list[MessageEvent]) -> list[str]:
    return [event.operation_id for event in events if event.outcome == "replayed"]


def test_a_sync_channel_parks_and_forwards_too(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    with sync_shop(address, queue_name, server, registry) as (_, charge, events):
        assert charge(b"a", metadata=(("idempotency-key", "op-0"),), timeout=30) == b"charged:op-0"
        server.stop()
        for number in range(1, 8):
            key = f"op-{number}"
            reply, call = charge.with_call(b"a", metadata=(("idempotency-key", key),), timeout=30)
            assert reply == b"pending:" + key.encode()
            assert call.code() is grpc.StatusCode.OK
        server.start()
        until_sync(lambda: len(replayed(events)) == 7)
    assert set(server.effects) == {f"op-{number}" for number in range(8)}


def test_a_sync_future_is_parked_without_blocking_grpcs_threads(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    with sync_shop(address, queue_name, server, registry) as (_, charge, events):
        server.stop()
        futures = [
            charge.future(b"a", metadata=(("idempotency-key", f"op-{number}"),), timeout=30)
            for number in range(5)
        ]
        assert [future.result(10) for future in futures] == [
            b"pending:op-%d" % number for number in range(5)
        ]
        server.start()
        until_sync(lambda: len(replayed(events)) == 5)
    assert len(server.effects) == 5


async def test_a_replay_of_a_call_without_a_deadline_has_one(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    hangs = threading.Event()

    def hang(key: str) -> None:
        hangs.wait(60)

    server.answer = hang
    async with aio_shop(
        address, queue_name, server, registry, forward=False, max_attempts=1000
    ) as shop:  # since a slow machine needs several for an answer in so short a time
        trip(registry)
        assert await shop.charge("a", "op-a", timeout=None) == b"pending:op-a"
        recover(registry)
        shop.calls._forwarding = dataclasses.replace(shop.calls._forwarding, replay_timeout=0.2)
        shop.forward()
        try:
            await until(lambda: registry.get(CHARGE).snapshot().counters.opened > 1)
        finally:
            hangs.set()
        await until(lambda: shop.happened("replayed") == ["op-a"])


def test_lanes_are_made_for_one_replay_at_a_time_where_that_is_asked_for() -> None:
    assert ParkedCalls(
        "amqp://localhost", queue="charges", replay=ReplayPolicy(scope="cluster")
    ).topology.single
    assert not ParkedCalls("amqp://localhost", queue="charges").topology.single
