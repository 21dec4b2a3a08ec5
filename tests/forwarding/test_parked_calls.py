"""Payments asked for during an outage are made after it, on sync and on asyncio channels."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aio_pika
import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.brokers import Message, open_broker
from fusewire.errors import BrokerUnavailableError, CircuitOpenError, FusewireError, SettingsError
from fusewire.forwarding import OPERATION_ID_METADATA, PARKED_METADATA, ParkedCalls, Receipt
from fusewire.forwarding._call import StoredCall
from fusewire.interceptors import aio_interceptors, guard
from fusewire.parking import ReplayPolicy, RetryPolicy
from fusewire.parking import _consumer as parking_consumer
from tests.forwarding.conftest import CHANNEL_OPTIONS, CHARGE, PaymentsServer
from tests.forwarding.shop import aio_shop, pending, trip
from tests.support.grpc_server import ECHO, EchoServer, ask
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
        answer.wait(10)

    server.answer = wait
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        for number in range(3):
            await shop.charge("a", f"op-{number}")
        shop.calls.forward_to(shop.channel)  # and not ended before the channel is
        await until(lambda: server.seen)
    answer.set()
    server.answer = lambda key: None
    async with aio_shop(address, queue_name, server, BreakerRegistry()) as shop:
        await until(lambda: len(shop.happened("replayed")) == 3)
        assert shop.happened("dead") == []
    assert set(server.effects) == {f"op-{number}" for number in range(3)}


async def test_at_most_once_a_replay_cut_off_by_its_closed_channel_is_ambiguous(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    answer = threading.Event()

    def wait(key: str) -> None:
        answer.wait(10)

    server.answer = wait
    async with aio_shop(
        address, queue_name, server, registry, at_most_once=True, forward=False
    ) as shop:
        trip(registry)
        for number in range(3):
            await shop.charge("a", f"op-{number}")
        shop.calls.forward_to(shop.channel)
        await until(lambda: server.seen)
    answer.set()
    async with open_broker(address) as broker:
        (dead,) = await broker.peek(shop.calls.topology.dead, limit=5)
    assert dead.headers["fusewire-reason"] == "ambiguous"
    assert dead.headers["fusewire-exception"] == "fusewire.forwarding.ChannelClosedError"
    server.answer = lambda key: None
    async with aio_shop(address, queue_name, server, BreakerRegistry(), at_most_once=True) as shop:
        await until(lambda: len(shop.happened("replayed")) == 2)  # unsent, and in no doubt
        assert shop.happened("dead") == []


async def test_at_most_once_parks_what_the_circuit_rejected(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, at_most_once=True) as shop:
        trip(registry)
        assert await shop.charge("a", "op-a") == b"pending:op-a"
        await until(lambda: shop.happened("replayed") == ["op-a"])
    assert [key for key, _ in server.seen] == ["op-a"]


async def test_at_most_once_never_parks_what_may_have_taken_effect(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.UNAVAILABLE
    async with aio_shop(address, queue_name, server, registry, at_most_once=True) as shop:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await shop.charge("a", "op-a")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not isinstance(caught.value, CircuitOpenError)
    trailing = dict(caught.value.trailing_metadata())
    assert trailing[OPERATION_ID_METADATA] == "op-a"
    assert trailing[PARKED_METADATA] == "no"
    assert len(server.seen) == 1


_RETRIES = """{"methodConfig": [{"name": [{}], "retryPolicy": {
    "maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "0.2s",
    "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""


async def test_at_most_once_a_call_that_took_effect_is_not_parked_though_its_end_is_refused(
    queue_name: str, registry: BreakerRegistry, tmp_path: Path
) -> None:
    # gRPC's own retries find the port closed, and that is the status which the call ends with.
    options = [("grpc.service_config", _RETRIES), *CHANNEL_OPTIONS]
    address = f"sqlite:///{tmp_path}/broker.db"
    with EchoServer() as mortal:
        async with ParkedCalls(address, queue=queue_name, registry=registry) as calls:
            fallbacks = {ECHO: calls.park(reply=pending, at_most_once=True)}
            interceptors = aio_interceptors(registry=registry, fallbacks=fallbacks)
            async with grpc.aio.insecure_channel(
                mortal.target, interceptors=interceptors, options=options
            ) as channel:
                method: Any = channel.unary_unary(ECHO)
                call = method(ask(delay=20))
                await until(lambda: mortal.seen()["begun"] == 1, "the effect")
                mortal.kill()
                with pytest.raises(grpc.aio.AioRpcError, match="refused") as caught:
                    await call
    assert dict(caught.value.trailing_metadata())[PARKED_METADATA] == "no"


async def test_an_at_most_once_replay_that_ends_in_doubt_is_dead_as_ambiguous(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.UNAVAILABLE
    async with aio_shop(address, queue_name, server, registry, at_most_once=True) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        await until(lambda: shop.happened("dead") == ["op-a"])
        (dead,) = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == "ambiguous"
    assert dead.body == b"a"
    assert len(server.seen) == 1


async def test_a_replay_that_the_server_refuses_is_dead_and_seen(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.INVALID_ARGUMENT
    async with aio_shop(address, queue_name, server, registry) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
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
        await until(lambda: shop.happened("replayed") == ["op-a"])
        await until(lambda: shop.happened("dead") == ["stray"])
        (dead,) = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == "malformed"


async def test_when_the_store_is_gone_the_caller_gets_the_error_and_the_operation_id(
    queue_name: str, server: PaymentsServer, registry: BreakerRegistry, tmp_path: Path
) -> None:
    address = f"sqlite:///{tmp_path}/broker.db"
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        await shop.calls.__aexit__(None, None, None)
        with pytest.raises(CircuitOpenError) as caught:
            await shop.charge("a", "op-a")
    trailing = dict(caught.value.trailing_metadata())  # type: ignore[attr-defined]
    assert trailing[OPERATION_ID_METADATA] == "op-a"
    assert trailing[PARKED_METADATA] == "no"


async def test_a_reply_function_that_fails_leaves_the_error_and_says_that_it_is_parked(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    def broken(request: bytes, receipt: Receipt) -> bytes:
        raise ValueError("no template")

    async with aio_shop(address, queue_name, server, registry, reply=broken) as shop:
        trip(registry)
        with pytest.raises(CircuitOpenError) as caught:
            await shop.charge("a", "op-a")
        assert dict(caught.value.trailing_metadata())[PARKED_METADATA] == "yes"  # type: ignore[attr-defined]
        await until(lambda: shop.happened("replayed") == ["op-a"])


async def test_a_coroutine_function_may_make_the_reply(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async def reply(request: bytes, receipt: Receipt) -> bytes:
        await asyncio.sleep(0)
        return pending(request, receipt)

    async with aio_shop(address, queue_name, server, registry, reply=reply) as shop:
        trip(registry)
        assert await shop.charge("a", "op-a") == b"pending:op-a"


@contextmanager
def sync_shop(
    address: str, queue: str, server: PaymentsServer, registry: BreakerRegistry
) -> Iterator[tuple[ParkedCalls, Any, list[MessageEvent]]]:
    with ParkedCalls(
        address, queue=queue, registry=registry, retry=RetryPolicy(delays=(0.05, 0.2))
    ) as calls:
        events: list[MessageEvent] = []
        calls.add_listener(events.append)
        fallbacks = {CHARGE: calls.park(reply=pending, idempotent=True)}
        bare = grpc.insecure_channel(server.target, options=CHANNEL_OPTIONS)
        with (
            guard(bare, registry=registry, fallbacks=fallbacks) as channel,
            calls.forward_to(channel),
        ):
            yield calls, channel.unary_unary(CHARGE), events


def replayed(events: list[MessageEvent]) -> list[str]:
    return [event.operation_id for event in events if event.outcome == "replayed"]


def test_a_sync_channel_parks_and_forwards_too(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    with sync_shop(address, queue_name, server, registry) as (_, charge, events):
        assert charge(b"a", metadata=(("idempotency-key", "op-0"),), timeout=2) == b"charged:op-0"
        server.stop()
        for number in range(1, 8):
            key = f"op-{number}"
            reply, call = charge.with_call(b"a", metadata=(("idempotency-key", key),), timeout=2)
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
            charge.future(b"a", metadata=(("idempotency-key", f"op-{number}"),), timeout=2)
            for number in range(5)
        ]
        assert [future.result(10) for future in futures] == [
            b"pending:op-%d" % number for number in range(5)
        ]
        server.start()
        until_sync(lambda: len(replayed(events)) == 5)
    assert len(server.effects) == 5


async def test_at_most_once_is_sent_once_though_its_dead_queue_refuses(
    amqp_url: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parking_consumer, "_HOLD_LIMIT", 0.3)
    connection = await aio_pika.connect(amqp_url)
    async with (
        connection,
        aio_shop(amqp_url, queue_name, server, registry, at_most_once=True) as shop,
    ):
        trip(registry)
        await shop.charge("a", "op-0")
        await until(lambda: shop.happened("replayed") == ["op-0"])  # the forwarder runs
        channel = await connection.channel()
        await channel.queue_delete(str(shop.calls.topology.dead))
        server.answer = lambda key: grpc.StatusCode.UNAVAILABLE
        trip(registry)
        await shop.charge("a", "op-a")
        await until(lambda: len(server.seen) == 2)
        async with open_broker(amqp_url) as broker:
            lane = shop.calls.topology.parked("other")

            async def back() -> bool:
                return await broker.depth(lane) == 1

            await until(back)  # held for as long as it may be, then given back
            await broker.create_queue(str(shop.calls.topology.dead))
        await until(lambda: shop.happened("dead") == ["op-a"])
    assert [key for key, _ in server.seen] == ["op-0", "op-a"]


class _Broken(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor of the user's that fails after the reply."""

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        call = await continuation(client_call_details, request)
        await call
        raise KeyError("a bug of the user's")


async def test_at_most_once_is_sent_once_whatever_is_raised_after_it(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(
        address, queue_name, server, registry, at_most_once=True, forward=False
    ) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        async with (
            grpc.aio.insecure_channel(server.target, interceptors=[_Broken()]) as channel,
            shop.calls.forward_to(channel),
        ):
            await until(lambda: shop.happened("dead") == ["op-a"])
    assert len(server.seen) == 1


async def test_a_redelivered_at_most_once_call_stays_in_doubt_when_it_is_handed_back(
    amqp_url: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(
        amqp_url, queue_name, server, registry, at_most_once=True, forward=False
    ) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        async with open_broker(amqp_url) as broker:
            subscription = await broker.subscribe(shop.calls.topology.parked("other"), prefetch=1)
            await subscription.receive()
            await subscription.release()  # somebody held it, and did not say what became of it
        shop.forward()
        await until(lambda: shop.happened("dead") == ["op-a"])
    assert server.seen == []


async def test_a_store_that_does_not_confirm_in_time_is_reported_as_unknown(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        broker = shop.calls._store.broker
        assert broker is not None

        async def never(*_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

        shop.calls._store._timeout = 0.1
        broker.publish = never
        with pytest.raises(CircuitOpenError) as caught:
            await shop.charge("a", "op-a")
    assert dict(caught.value.trailing_metadata())[PARKED_METADATA] == "unknown"  # type: ignore[attr-defined]


class _Unserializable:
    """A message of which grpcio, on asyncio, sends nothing."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        raise ValueError("it cannot be serialized")


async def test_a_request_that_cannot_be_serialized_is_not_parked_as_nothing(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        charge: Any = shop.channel.unary_unary(
            CHARGE, request_serializer=lambda request: request.SerializeToString()
        )
        with pytest.raises(CircuitOpenError) as caught:
            await charge(_Unserializable(), timeout=2)
    assert dict(caught.value.trailing_metadata())[PARKED_METADATA] == "no"  # type: ignore[attr-defined]
    assert shop.happened("parked") == []
    assert server.seen == []


async def test_a_replay_of_a_call_without_a_deadline_has_one(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    hangs = threading.Event()

    def hang(key: str) -> None:
        hangs.wait(60)

    server.answer = hang
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        assert await shop.charge("a", "op-a", timeout=None) == b"pending:op-a"
        shop.calls._replay_timeout = 0.2
        shop.forward()
        try:
            await until(lambda: registry.get(CHARGE).snapshot().counters.opened > 1)
        finally:
            hangs.set()
        await until(lambda: shop.happened("replayed") == ["op-a"])


async def test_a_key_that_grpc_cannot_send_is_not_parked_with_it(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry, forward=False) as shop:
        trip(registry)
        with pytest.raises(Exception, match="execute_batch"):  # grpcio's own way to say so
            await shop.charge("a", "schlüssel")
    assert shop.happened("parked") == []


async def test_a_forwarding_on_the_running_loop_says_how_to_end_it(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    async with aio_shop(address, queue_name, server, registry) as shop:
        assert shop.forwarding is not None
        with pytest.raises(RuntimeError, match="async with"), shop.forwarding:
            pass


A_CALL = StoredCall(operation_id="op-a", method=CHARGE, request=b"")


async def test_after_a_fork_the_error_says_what_to_do(
    queue_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue=queue_name) as calls:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(FusewireError, match="after the fork"):
            await calls._store.store(A_CALL, breaker=CHARGE)


async def test_a_sync_call_on_the_loops_own_thread_is_told_so_and_does_not_hang(
    queue_name: str, tmp_path: Path
) -> None:
    async with ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue=queue_name) as calls:
        with pytest.raises(FusewireError, match="wait for itself"):
            calls._store.store_threadsafe(A_CALL, breaker=CHARGE)


async def test_an_unreachable_broker_is_reported_on_entering(queue_name: str) -> None:
    calls = ParkedCalls("amqp://user:hidden@127.0.0.1:1/", queue=queue_name)
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1") as caught:
        await calls.__aenter__()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "must be given one of"),
        ({"idempotent": True, "at_most_once": True}, "must be given one of"),
        ({"idempotent": True, "reply": None}, r"reply must be .*, got None"),
        ({"idempotent": True, "metadata": ["Authorization"]}, "authorization"),
        ({"idempotent": True, "metadata": "x-tenant"}, "metadata must be a list of keys"),
        ({"idempotent": True, "metadata": ["grpc-timeout"]}, "grpc-timeout"),
        ({"idempotent": True, "expires_after": -1}, r"expires_after must be .*, got -1"),
        ({"idempotent": True, "expires_after": float("nan")}, r"expires_after must be .*, got nan"),
    ],
)
def test_a_wrong_park_is_told_when_it_is_made(arguments: dict[str, Any], named: str) -> None:
    calls = ParkedCalls("amqp://localhost", queue="charges")
    with pytest.raises(SettingsError, match=named):
        calls.park(**{"reply": pending, **arguments})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"park_timeout": 0}, r"park_timeout must be .*, got 0"),
        ({"replay_timeout": float("inf")}, r"replay_timeout must be .*, got inf"),
        ({"queue": ""}, "queue must be a non-empty string"),
        ({"replay": "alone"}, r"replay must be a ReplayPolicy, or None, got 'alone'"),
        ({"retry": 5}, r"retry must be a RetryPolicy, or None, got 5"),
        ({"registry": {}}, r"registry must be a BreakerRegistry, or None, got {}"),
        ({"shutdown_timeout": -1}, r"shutdown_timeout must be .*, got -1"),
        ({"address": ""}, "the broker's address must be"),
        ({"lanes": {"eu": "charges"}}, r"lanes\['eu'\] must be a list"),
    ],
)
def test_a_wrong_setting_is_reported_when_it_is_made(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        ParkedCalls(**{"address": "amqp://localhost", "queue": "charges", **arguments})


def test_lanes_are_made_for_one_replay_at_a_time_where_that_is_asked_for() -> None:
    assert ParkedCalls(
        "amqp://localhost", queue="charges", replay=ReplayPolicy(scope="cluster")
    ).topology.single
    assert not ParkedCalls("amqp://localhost", queue="charges").topology.single


async def test_forwarding_needs_a_channel_and_an_entered_store(
    queue_name: str, tmp_path: Path
) -> None:
    calls = ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue=queue_name)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(RuntimeError, match="enter"):
            calls.forward_to(channel)
        async with calls:
            with pytest.raises(SettingsError, match="channel must be a guarded"):
                calls.forward_to("127.0.0.1:1")  # type: ignore[arg-type]
            calls.forward_to(channel)
            with pytest.raises(RuntimeError, match="before"):
                calls.forward_to(channel)


def test_an_asyncio_channel_is_refused_by_a_store_with_a_loop_of_its_own(
    queue_name: str, tmp_path: Path
) -> None:
    async def main(calls: ParkedCalls) -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            calls.forward_to(channel)

    with (
        ParkedCalls(f"sqlite:///{tmp_path}/b.db", queue=queue_name) as calls,
        pytest.raises(SettingsError, match="async with"),
    ):
        asyncio.run(main(calls))
