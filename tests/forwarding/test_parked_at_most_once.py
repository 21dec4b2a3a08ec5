"""A call that may be made at most once is sent once, and is dead as ambiguous if in doubt."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import aio_pika
import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.brokers import open_broker
from fusewire.errors import CircuitOpenError, QueueNotFoundError
from fusewire.forwarding import OPERATION_ID_METADATA, PARKED_METADATA, ParkedCalls
from fusewire.interceptors import aio_interceptors
from fusewire.parking import _consumer as parking_consumer
from tests.forwarding.conftest import CHANNEL_OPTIONS, PaymentsServer
from tests.forwarding.shop import aio_shop, pending, recover, trip
from tests.support.grpc_server import ECHO, EchoServer, ask
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path


async def test_at_most_once_a_replay_cut_off_by_its_closed_channel_is_ambiguous(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    answer = threading.Event()

    def wait(key: str) -> None:
        answer.wait(60)

    server.answer = wait
    async with aio_shop(
        address, queue_name, server, registry, at_most_once=True, forward=False
    ) as shop:
        trip(registry)
        for number in range(3):
            await shop.charge("a", f"op-{number}")
        recover(registry)
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
        recover(registry)
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
    trailing = dict(tuple(caught.value.trailing_metadata()))
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
    assert dict(tuple(caught.value.trailing_metadata()))[PARKED_METADATA] == "no"


async def test_an_at_most_once_replay_that_ends_in_doubt_is_dead_as_ambiguous(
    address: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.answer = lambda key: grpc.StatusCode.UNAVAILABLE
    async with aio_shop(address, queue_name, server, registry, at_most_once=True) as shop:
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: shop.happened("dead") == ["op-a"])
        (dead,) = await shop.dead(address)
    assert dead.headers["fusewire-reason"] == "ambiguous"
    assert dead.body == b"a"
    assert len(server.seen) == 1


async def test_at_most_once_is_sent_once_though_its_dead_queue_refuses(
    amqp_url: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A machine that pauses for so long between the mark of a sending and the sending leaves it in
    # doubt, which is right and not what this test is about.
    monkeypatch.setattr(parking_consumer, "_HOLD_LIMIT", 3.0)
    connection = await aio_pika.connect(amqp_url)
    async with (
        connection,
        aio_shop(amqp_url, queue_name, server, registry, at_most_once=True) as shop,
    ):
        # RabbitMQ may return a call to a subscription that is replaced meanwhile, which leaves it
        # in doubt too. So no lane is subscribed to before the call waits there.
        await until(lambda: _has_receiver(amqp_url, queue_name), "the forwarder runs")
        channel = await connection.channel()
        await channel.queue_delete(str(shop.calls.topology.dead))
        server.answer = lambda key: grpc.StatusCode.UNAVAILABLE
        trip(registry)
        await shop.charge("a", "op-a")
        recover(registry)
        await until(lambda: len(server.seen) == 1)
        async with open_broker(amqp_url) as broker:
            lane = shop.calls.topology.parked("other")

            async def back() -> bool:
                return await broker.depth(lane) == 1

            await until(back)  # held for as long as it may be, then given back
            await broker.create_queue(str(shop.calls.topology.dead))
        await until(lambda: shop.happened("dead") == ["op-a"])
    assert [key for key, _ in server.seen] == ["op-a"]


async def _has_receiver(address: str, queue: str) -> bool:
    async with open_broker(address) as broker:
        try:
            return await broker.receivers(queue) == 1
        except QueueNotFoundError:
            return False


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
        recover(registry)
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
        recover(registry)
        async with open_broker(amqp_url) as broker:
            subscription = await broker.subscribe(shop.calls.topology.parked("other"), prefetch=1)
            await subscription.receive()
            await subscription.release()  # somebody held it, and did not say what became of it
        shop.forward()
        await until(lambda: shop.happened("dead") == ["op-a"])
    assert server.seen == []
