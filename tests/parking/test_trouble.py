"""Handlers that behave badly, circuits that flap, connections that drop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry, CircuitBreaker
from fusewire.brokers import Message
from fusewire.parking import _consumer as consumer_module
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


def open_circuit(registry: BreakerRegistry, name: str = "payments", seconds: float = 60) -> Any:
    breaker = registry.get(name)
    while breaker.can_execute():
        breaker.acquire().failure(retry_after=seconds)
    return breaker


async def test_a_handler_that_returns_a_coroutine_is_awaited(bench: Bench) -> None:
    done: list[str] = []

    async def on_order(message: AbstractIncomingMessage) -> None:
        await asyncio.sleep(0)
        done.append(message.body.decode())

    await bench.send("a")
    async with bench.consumer(lambda message: on_order(message)):  # noqa: PLW0108 - the case
        await until(lambda: bench.happened("handled") == ["a"])
    assert done == ["a"]


async def test_a_message_that_fails_of_itself_is_delayed_though_its_circuit_is_half_open(
    bench: Bench,
) -> None:
    calls = 0
    open_circuit(bench.registry, seconds=0.1)

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("malformed order")

    await bench.send("a")
    async with bench.consumer(handler, depends_on="payments", max_attempts=3):
        await until(lambda: bench.happened("dead") == ["a"])
    assert calls == 3


async def test_a_circuit_that_is_not_among_ours_is_not_asked_all_the_time(bench: Bench) -> None:
    elsewhere = CircuitBreaker("database", failure_threshold=1)
    elsewhere.acquire().failure(retry_after=60)
    calls = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal calls
        calls += 1
        if calls > 4:
            elsewhere.reset()
        await elsewhere.call_async(asyncio.sleep, 0)

    await bench.send("a")
    async with bench.consumer(handler):
        loop = asyncio.get_running_loop()
        await until(lambda: calls >= 2)
        begin = loop.time()
        await until(lambda: calls >= 4)
        assert loop.time() - begin > 1  # a second between tries, and not milliseconds
        await until(lambda: bench.happened("replayed") == ["a"])


async def test_a_call_that_failed_before_its_retry_was_rejected_is_an_attempt(
    bench: Bench,
) -> None:
    breaker = bench.registry.get("payments")
    good: list[str] = []

    async def work(body: str) -> None:
        if body == "poison":
            raise ConnectionError("it makes the server fail")
        good.append(body)

    async def handler(message: AbstractIncomingMessage) -> None:
        for attempt in range(3):  # a retry within the handler
            try:
                await breaker.call_async(work, message.body.decode())
            except ConnectionError:
                if attempt == 2:
                    raise
            else:
                return

    open_circuit(bench.registry, seconds=0.1)
    await bench.send("poison", "a", "b")
    async with bench.consumer(handler, depends_on="payments", concurrency=1, max_attempts=2):
        await until(lambda: sorted(good) == ["a", "b"])


def by_call(breaker: CircuitBreaker, work: Callable[[], None]) -> None:
    breaker.call(work)


def by_decorator(breaker: CircuitBreaker, work: Callable[[], None]) -> None:
    breaker(work)()


def by_block(breaker: CircuitBreaker, work: Callable[[], None]) -> None:
    with breaker.acquire():
        work()


def by_permit(breaker: CircuitBreaker, work: Callable[[], None]) -> None:
    permit = breaker.acquire()
    try:
        work()
    finally:
        permit.failure()


@pytest.mark.parametrize("through", [by_call, by_decorator, by_block, by_permit])
async def test_a_rejection_after_a_call_of_its_own_failed_is_an_attempt(
    bench: Bench, through: Callable[[CircuitBreaker, Callable[[], None]], None]
) -> None:
    def fail() -> None:
        raise ConnectionError("it makes the server fail")

    def handler(message: AbstractIncomingMessage) -> None:
        for _ in range(2):  # the second failure opens the circuit
            with contextlib.suppress(ConnectionError):
                through(bench.registry.get("payments"), fail)
        through(bench.registry.get("payments"), fail)

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])
    [event] = [event for event in bench.events if event.outcome == "dead"]
    assert event.reason == "exhausted"
    assert bench.happened("parked") == []


@pytest.mark.parametrize(
    "error",
    [ValueError("bad \udcff"), type("OwnError", (BaseException,), {})("odd")],
    ids=["unencodable", "no Exception"],
)
async def test_an_odd_error_keeps_nobody_else_from_being_handled(
    bench: Bench, error: BaseException
) -> None:
    handled: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body != b"good":
            raise error
        handled.append("good")

    await bench.send("odd-1", "odd-2", "good")
    async with bench.consumer(handler, concurrency=2, max_attempts=1, shutdown_timeout=1):
        await until(lambda: handled)


async def test_ack_before_an_error_means_done(bench: Bench) -> None:
    calls = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal calls
        calls += 1
        await message.ack()
        raise ValueError("in the clean-up")

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("handled") == ["a"])
    assert calls == 1


async def test_the_users_function_decides_the_operation_id(bench: Bench) -> None:
    await bench.send("a", headers={"fusewire-operation-id": "of-the-header"})
    async with bench.consumer(lambda message: None, operation_id=lambda message: "of-the-function"):
        await until(lambda: bench.happened("handled") == ["of-the-function"])


async def test_an_operation_id_that_is_no_text_is_reported_and_the_message_is_seen(
    bench: Bench,
) -> None:
    await bench.send("a")
    async with bench.consumer(lambda message: None, operation_id=lambda message: 17):
        await until(lambda: len(bench.happened("dead")) == 1)
    (dead,) = await bench.dead()
    assert "17" in str(dead.headers["fusewire-exception-message"])


async def test_two_consumers_of_a_process_both_end_on_a_signal(bench: Bench) -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with (
        consumer_module.ParkingConsumer(
            bench.broker, queue=bench.queue, handler=lambda message: None
        ) as first,
        consumer_module.ParkingConsumer(
            bench.broker, queue=bench.queue, handler=lambda message: None
        ) as second,
    ):
        running = asyncio.gather(first.run(), second.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 30)
    assert signal.getsignal(signal.SIGTERM) == before


async def test_what_is_held_too_long_goes_back_and_is_replayed_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "_HOLD_LIMIT", 1.0)
    effects: list[str] = []
    breaker = open_circuit(bench.registry, "elsewhere", seconds=3.0)

    async def work(body: str) -> None:
        effects.append(body)

    async def handler(message: AbstractIncomingMessage) -> None:
        await breaker.call_async(work, message.body.decode())

    bodies = [f"m{number}" for number in range(4)]
    for number, body in enumerate(bodies):
        message = Message(
            body=body.encode(),
            message_id=body,
            headers={"fusewire-at-most-once": number % 2 == 0, "fusewire-times-parked": 1},
        )
        await bench.broker.create_queue(f"{bench.queue}.parked.other")
        await bench.broker.publish(f"{bench.queue}.parked.other", message)
    async with bench.consumer(handler, replay_concurrency=4, shutdown_timeout=2):
        await until(lambda: len(effects) == 4)
        await until(lambda: len(bench.happened("replayed")) == 4)
    assert sorted(effects) == bodies
    assert bench.happened("dead") == []


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
async def test_what_waits_in_flight_when_the_connection_drops_is_not_replayed_twice(
    bench: Bench,
) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    lane = f"{bench.queue}.parked.other"
    async with bench.consumer(dependency, replay_concurrency=3):
        for body in ("a", "b"):
            headers: dict[str, Any] = {
                "fusewire-times-parked": 1,
                "fusewire-dependency": "payments",
            }
            await bench.broker.publish(
                lane, Message(body=body.encode(), message_id=body, headers=headers)
            )

        async def in_hand() -> bool:
            return await bench.broker.depth(lane) == 0

        for _ in range(2):
            await until(in_hand)
            await bench.drop_connection()
        dependency.recover()
        await until(lambda: len(bench.happened("replayed")) == 2)
    assert sorted(dependency.effects) == ["a", "b"]


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
async def test_dropped_connections_do_not_raise_the_number_of_running_handlers(
    bench: Bench,
) -> None:
    running = most = 0
    go_on = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        running -= 1

    await bench.send("a", "b", "c")
    async with bench.consumer(handler, concurrency=2):
        for _ in range(3):
            await until(lambda: running == 2)
            await bench.drop_connection()
            await until(lambda: bench.broker._consuming._connection is not None)  # type: ignore[attr-defined]
        go_on.set()
        await until(lambda: set(bench.happened("handled")) == {"a", "b", "c"})
    assert most == 2
