"""`on_open="pause"`: the queue's order is kept, and nothing is parked."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from fusewire.breaker import BreakerSettings, CircuitBreaker
from fusewire.parking import Reject, Retry
from fusewire.parking._workers import ordered as ordered_module
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.breaker import BreakerRegistry
    from tests.parking.conftest import Bench

BODIES = [f"m{number}" for number in range(8)]


class Server:
    """What handlers call through the breaker `payments`."""

    def __init__(self, registry: BreakerRegistry) -> None:
        self.breaker = registry.get("payments")
        self.down = False
        self.poison = "none"
        self.calls: list[str] = []
        self.effects: list[str] = []

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        await self.breaker.call_async(self._work, message.body.decode())

    async def _work(self, what: str) -> None:
        self.calls.append(what)
        if self.down or what == self.poison:
            raise ConnectionError("payments is down")
        self.effects.append(what)


@pytest.fixture
def server(registry: BreakerRegistry) -> Server:
    return Server(registry)


async def at_rest(bench: Bench, count: int) -> None:
    async def so() -> bool:
        return await bench.broker.depth(bench.queue) == count

    await until(so)


@pytest.mark.parametrize("declared", ["payments", None])
async def test_order_is_kept_through_an_outage_and_nothing_is_parked_or_held(
    bench: Bench, server: Server, declared: str | None
) -> None:
    options = {"on_open": "pause", "concurrency": 1, "depends_on": declared}
    async with bench.consumer(server, **options):
        await bench.send(*BODIES[:3])
        await until(lambda: len(server.effects) == 3)
        server.down = True
        await bench.send(*BODIES[3:])
        await until(lambda: server.calls.count("m3") >= 4)  # two open the circuit, two probe
        await at_rest(bench, 5)  # in nobody's hand
        server.down = False
        await until(lambda: len(bench.happened("handled")) == 8)
    assert server.effects == BODIES
    assert set(server.calls[3:-5]) == {"m3"}
    assert {str(event.outcome) for event in bench.events} == {"handled"}


async def test_a_circuit_that_is_open_from_the_start_is_waited_for(
    bench: Bench, server: Server
) -> None:
    server.breaker.force_open()
    await bench.send(*BODIES)
    async with bench.consumer(server, on_open="pause", depends_on="payments"):
        await at_rest(bench, 8)
        assert server.calls == []
        server.breaker.reset()
        await until(lambda: len(server.effects) == 8)
    assert server.effects == BODIES


async def test_several_at_a_time_begin_in_order_also_after_an_outage(
    bench: Bench, server: Server
) -> None:
    server.down = True
    begun: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        begun.append(message.body.decode())
        await server(message)

    await bench.send(*BODIES)
    async with bench.consumer(handler, on_open="pause", concurrency=3, depends_on="payments"):
        await until(lambda: begun.count("m0") >= 2)
        await at_rest(bench, 8)
        server.down = False
        await until(lambda: len(bench.happened("handled")) == 8)
    last = {body: len(begun) - begun[::-1].index(body) for body in BODIES}
    assert sorted(BODIES, key=last.__getitem__) == BODIES
    assert sorted(server.effects) == BODIES


async def test_a_failure_in_a_closed_circuit_is_tried_again_before_what_is_behind_it(
    bench: Bench,
) -> None:
    attempts: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        body = message.body.decode()
        attempts.append(body)
        if body == "bad" or attempts.count("shy") in (1, 2):
            raise ValueError("not yet")

    await bench.send("shy", "bad", "good")
    async with bench.consumer(handler, on_open="pause", concurrency=1, max_attempts=3):
        await until(lambda: bench.happened("handled") == ["shy", "good"])
    assert attempts == ["shy", "shy", "shy", "bad", "bad", "bad", "good"]
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "exhausted"
    assert dead.headers["fusewire-attempts"] == 3
    assert bench.happened("delayed") == []


@pytest.mark.parametrize("closes_after", [1, 2])
async def test_a_message_that_opens_the_circuit_does_not_stop_the_queue_forever(
    bench: Bench, server: Server, closes_after: int
) -> None:
    server.breaker.replace_settings(
        BreakerSettings(
            failure_threshold=1, recovery_timeout=0.05, half_open_max_calls=closes_after
        )
    )
    server.poison = "m1"
    await bench.send(*BODIES[:5])
    async with bench.consumer(
        server, on_open="pause", concurrency=1, max_attempts=2, depends_on="payments"
    ):
        await until(lambda: bench.happened("dead") == ["m1"])
        await until(lambda: len(server.effects) == 4)
    assert server.effects == ["m0", "m2", "m3", "m4"]
    assert bench.happened("parked") == []


async def test_a_message_that_opens_the_circuit_alone_in_its_queue_waits_for_company(
    bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered_module, "_GLANCE", 0.05)
    server.breaker.replace_settings(BreakerSettings(failure_threshold=1, recovery_timeout=0.05))
    server.down = True
    await bench.send("m0")
    async with bench.consumer(
        server, on_open="pause", concurrency=1, max_attempts=2, depends_on="payments"
    ):
        await until(lambda: len(server.calls) >= 8)
        server.down = False
        await until(lambda: bench.happened("handled") == ["m0"])
    assert bench.happened("dead") == []


async def test_a_circuit_that_is_not_among_ours_is_waited_for_as_it_says(bench: Bench) -> None:
    elsewhere = CircuitBreaker("database", failure_threshold=1)
    elsewhere.acquire().failure(retry_after=0.7)
    calls: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        calls.append(message.body.decode())
        await elsewhere.call_async(asyncio.sleep, 0)

    await bench.send("a", "b")
    async with bench.consumer(handler, on_open="pause", concurrency=1):
        await until(lambda: bench.happened("handled") == ["a", "b"])
    assert calls == ["a", "a", "b"]


async def test_a_needed_circuit_that_only_the_message_names_is_waited_for(
    bench: Bench, server: Server
) -> None:
    server.breaker.force_open()
    handled: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        handled.append(message.body.decode())

    def needs(message: AbstractIncomingMessage) -> list[str]:
        return ["payments"] if message.body == b"b" else []

    await bench.send("a", "b", "c")
    async with bench.consumer(handler, on_open="pause", depends_on=needs):
        await until(lambda: handled == ["a"])
        await at_rest(bench, 2)  # c could be handled, but it comes after b
        server.breaker.reset()
        await until(lambda: len(handled) == 3)
    assert handled == ["a", "b", "c"]


async def test_what_a_handler_postpones_gives_up_its_place_and_what_it_rejects_is_dead(
    bench: Bench,
) -> None:
    handled: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        body = message.body.decode()
        if body == "no":
            raise Reject("never")
        if body == "later" and "good" not in handled:
            raise Retry(after=0.1)
        handled.append(body)

    await bench.send("later", "no", "good")
    async with bench.consumer(handler, on_open="pause", concurrency=1):
        await until(lambda: handled == ["good", "later"])
    assert bench.happened("dead") == ["no"]


async def test_what_was_parked_before_is_replayed_in_pause_mode_too(
    bench: Bench, server: Server
) -> None:
    server.breaker.force_open()
    await bench.send("a", "b")
    async with bench.consumer(server, depends_on="payments"):
        await until(lambda: len(bench.happened("parked")) == 2)
    server.breaker.reset()
    await bench.send("c")
    async with bench.consumer(server, depends_on="payments", on_open="pause"):
        await until(lambda: len(server.effects) == 3)
        await until(lambda: len(bench.happened("replayed")) == 2)
    assert sorted(server.effects) == ["a", "b", "c"]


async def test_stopping_while_it_tries_again_in_place_gives_the_message_back(
    bench: Bench,
) -> None:
    failed = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        failed.set()
        raise ValueError("broken")

    await bench.send("a", "b")
    async with bench.consumer(handler, on_open="pause", concurrency=1, delays=(60,)):
        await asyncio.wait_for(failed.wait(), 10)
    await at_rest(bench, 2)
    first, second = await bench.broker.peek(bench.queue, limit=2)
    assert [first.body, second.body] == [b"a", b"b"]


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
async def test_a_queue_with_a_delivery_limit_loses_nothing_however_long_the_outage(
    bench: Bench,
    server: Server,
    amqp_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # As RabbitMQ 4 has it by default, and as here also 3.
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        await channel.queue_delete(bench.queue)
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": 20}
        await channel.declare_queue(bench.queue, durable=True, arguments=arguments)
    server.breaker.replace_settings(BreakerSettings(failure_threshold=1, recovery_timeout=0.02))
    server.down = True
    await bench.send(*BODIES)
    options = {"on_open": "pause", "concurrency": 4, "depends_on": "payments"}
    async with bench.consumer(server, **options):
        await until(lambda: len(server.calls) > 40)  # held in flight from the ninth on
        server.down = False
        await until(lambda: len(server.effects) == 8)
    assert server.effects == BODIES
    assert bench.happened("parked") == []

    server.calls.clear()
    server.down = True
    monkeypatch.setattr(ordered_module, "_RETURNS_BEFORE_HOLDING", 1000)
    await bench.send(*BODIES)
    with caplog.at_level(logging.WARNING, "fusewire.parking"):
        async with bench.consumer(server, **options):
            await until(lambda: bench.happened("parked"))
            server.down = False
            await until(lambda: len(server.effects) == 16)
    assert sorted(server.effects[8:]) == BODIES
    assert "x-delivery-limit=-1" in caplog.text


async def test_stopping_lets_the_running_handler_finish_and_requeues_the_rest_in_order(
    bench: Bench,
) -> None:
    started = asyncio.Event()
    finish = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        started.set()
        await finish.wait()

    await bench.send(*BODIES)
    async with bench.consumer(handler, on_open="pause", concurrency=1) as consumer:
        await asyncio.wait_for(started.wait(), 10)
        consumer.stop()
        finish.set()
    assert bench.happened("handled") == ["m0"]
    await at_rest(bench, 7)
    left = await bench.broker.peek(bench.queue, limit=9)
    assert [message.body.decode() for message in left] == BODIES[1:]


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
async def test_dropped_connections_change_no_order_and_have_nothing_run_beside_itself(
    bench: Bench,
) -> None:
    running = 0
    begun: list[str] = []
    drop = {"m1", "m4"}

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal running
        body = message.body.decode()
        running += 1
        assert running == 1
        begun.append(body)
        try:
            if body in drop:
                drop.remove(body)
                await bench.drop_connection()
                await asyncio.sleep(0.2)  # long enough for it to be delivered again
        finally:
            running -= 1

    await bench.send(*BODIES)
    async with bench.consumer(handler, on_open="pause", concurrency=1):
        await until(lambda: "m7" in bench.happened("handled"))
    # What was done and could not be acknowledged is remembered, and not done again.
    assert begun == BODIES
    assert bench.happened("handled") == BODIES
    assert bench.happened("dead") == []
