"""What a consumer promises about a message, on every broker."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from typing import TYPE_CHECKING

from fusewire.breaker import CircuitState
from fusewire.brokers import Message
from fusewire.errors import CircuitOpenError
from fusewire.operation import current_operation, fallbacks_allowed
from fusewire.parking import _deliveries as deliveries_module
from tests.support.dependency import Dependency
from tests.support.messages import until_depth
from tests.support.waiting import until

if TYPE_CHECKING:
    import pytest
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


async def test_a_message_that_is_handled_is_gone(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    await bench.send("a", "b")
    async with bench.consumer(dependency):
        await until(lambda: len(bench.happened("handled")) == 2)
    assert sorted(dependency.effects) == ["a", "b"]
    await until_depth(bench.broker, bench.queue, 0)


async def test_a_message_parks_without_an_attempt_while_its_declared_circuit_is_open(
    bench: Bench,
) -> None:
    dependency = Dependency(bench.registry)
    bench.registry.get("payments").force_open()
    await bench.send("a", "b", "c")
    async with bench.consumer(dependency, depends_on="payments"):
        await until(lambda: len(bench.happened("parked")) == 3)
        assert dependency.calls == 0
        await until_depth(bench.broker, f"{bench.queue}.parked.payments", 3)  # none in flight
        bench.registry.get("payments").reset()
        await until(lambda: len(bench.happened("replayed")) == 3)
    assert sorted(dependency.effects) == ["a", "b", "c"]
    await until_depth(bench.broker, f"{bench.queue}.parked.payments", 0)


async def test_a_dependency_that_is_not_declared_is_learnt_from_the_rejection(bench: Bench) -> None:
    dependency = Dependency(bench.registry, "stock")
    dependency.trip()
    await bench.send("a")
    async with bench.consumer(dependency):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert [event.dependency for event in bench.events if event.outcome == "parked"] == ["stock"]


async def test_a_rejection_is_found_behind_the_users_own_exception(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            await dependency(message)
        except CircuitOpenError as error:
            raise ValueError("no payment") from error

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert bench.happened("dead") == []


async def test_an_outage_in_mid_load_loses_nothing_and_makes_everything_once(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    bodies = [f"m{number}" for number in range(60)]
    async with bench.consumer(dependency, depends_on="payments"):
        await bench.send(*bodies[:20])
        await until(lambda: len(dependency.effects) == 20)
        dependency.down = True
        await bench.send(*bodies[20:])
        await until(lambda: len(bench.happened("parked")) >= 30)
        dependency.down = False
        await until(lambda: len(dependency.effects) >= 60)
        await until(lambda: dependency.breaker.state is CircuitState.CLOSED)
    assert sorted(dependency.effects) == sorted(bodies)
    assert bench.happened("dead") == []


async def test_a_replayed_message_looks_like_the_original(bench: Bench) -> None:
    seen: list[AbstractIncomingMessage] = []
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        seen.append(message)
        await dependency(message)

    await bench.send(
        "a",
        exchange="orders-exchange",
        routing_key="orders.eu",
        headers={"tenant": "blue", "n": 7},
        content_type="application/json",
        reply_to="answers",
        priority=3,
    )
    async with bench.consumer(handler):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    first, last = seen[0], seen[-1]
    assert last.exchange == "orders-exchange"
    assert last.routing_key == "orders.eu"
    assert last.message_id == "a"
    assert dict(last.headers) == {"tenant": "blue", "n": 7} == dict(first.headers)
    assert last.info() == first.info()


async def test_the_operation_id_is_the_same_on_every_attempt_and_replay(bench: Bench) -> None:
    ids: list[str] = []
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        operation = current_operation()
        assert operation is not None
        ids.append(operation.id)
        await dependency(message)

    await bench.send("a", message_id=None)
    async with bench.consumer(handler):
        await until(lambda: len(bench.happened("parked")) == 1)
        dependency.recover()
        await until(lambda: len(bench.happened("replayed")) == 1)
    assert len(ids) >= 2
    assert len(set(ids)) == 1


async def test_fallbacks_are_suppressed_on_a_replay_and_only_there(bench: Bench) -> None:
    allowed: list[bool] = []
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: AbstractIncomingMessage) -> None:
        allowed.append(fallbacks_allowed())
        await dependency(message)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert allowed[0] is True
    assert allowed[-1] is False


async def test_a_plain_function_runs_in_a_thread_and_parks_too(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    threads: set[str] = set()

    def handler(message: AbstractIncomingMessage) -> None:
        threads.add(threading.current_thread().name)
        dependency.breaker.call(lambda: None)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert threading.main_thread().name not in threads


async def test_a_message_that_needs_two_waits_for_each_that_is_open(bench: Bench) -> None:
    payments = Dependency(bench.registry, "payments")
    stock = Dependency(bench.registry, "stock")
    payments.trip()
    stock.breaker.force_open()

    async def handler(message: AbstractIncomingMessage) -> None:
        await payments(message)
        await stock(message)

    await bench.send("a")
    async with bench.consumer(handler, depends_on=["payments", "stock"]):
        await until(lambda: bench.happened("parked") == ["a"])
        payments.recover()

        async def in_the_other_lane() -> bool:
            return await bench.depth("parked.stock") == 1

        await until(in_the_other_lane)
        stock.breaker.reset()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert stock.effects == ["a"]


async def test_a_lane_that_several_share_is_not_held_up_by_the_one_that_is_down(
    bench: Bench,
) -> None:
    down, well = Dependency(bench.registry, "down"), Dependency(bench.registry, "well")
    well.trip()
    for _ in range(2):
        down.breaker.acquire().failure(retry_after=60)
    who = {"d": down, "w": well}

    async def handler(message: AbstractIncomingMessage) -> None:
        await who[message.body.decode()[0]](message)

    bodies = [*(f"d{number}" for number in range(8)), *(f"w{number}" for number in range(3))]
    await bench.send(*bodies)
    async with bench.consumer(handler, concurrency=1, replay_concurrency=2):
        await until(lambda: len(set(bench.happened("parked"))) == 11)
        well.recover()
        await until(lambda: len(well.effects) == 3)
    assert down.effects == []
    parked = Counter(bench.happened("parked"))
    assert all(parked[f"d{number}"] <= 2 for number in range(8))  # once more for the open time


async def test_replay_begins_with_one_and_stops_when_the_circuit_reopens(bench: Bench) -> None:
    breaker = bench.registry.get("payments")
    at_once = 0
    most = 0
    down = True

    async def work() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        if down:
            raise ConnectionError("down")

    async def handler(message: AbstractIncomingMessage) -> None:
        await breaker.call_async(work)

    for _ in range(2):
        breaker.acquire().failure()
    await bench.send(*(f"m{number}" for number in range(12)))
    async with bench.consumer(handler, depends_on="payments"):
        await until(lambda: len(bench.happened("parked")) >= 14)  # twelve, and failed probes
        assert most == 1
        down = False
        await until(lambda: len(bench.happened("replayed")) == 12)
    assert bench.happened("dead") == []


async def test_stopping_lets_handlers_finish_and_gives_the_rest_back(bench: Bench) -> None:
    started = asyncio.Event()
    finish = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        started.set()
        await finish.wait()

    await bench.send("a", "b", "c")
    async with bench.consumer(handler, concurrency=1) as consumer:
        await asyncio.wait_for(started.wait(), 10)
        consumer.stop()
        finish.set()
    assert bench.happened("handled") == ["a"]
    await until_depth(bench.broker, bench.queue, 2)


async def test_a_handler_that_does_not_end_is_cancelled_and_its_message_goes_back(
    bench: Bench,
) -> None:
    started = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        started.set()
        await asyncio.Event().wait()

    await bench.send("a")
    async with bench.consumer(handler, shutdown_timeout=0.05):
        await asyncio.wait_for(started.wait(), 10)

    async def back() -> bool:
        return await bench.broker.depth(bench.queue) == 1

    await until(back)


async def test_a_handler_that_keeps_its_cancellation_to_itself_is_not_taken_for_done(
    bench: Bench,
) -> None:
    started = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    await bench.send("a")
    async with bench.consumer(handler, shutdown_timeout=0.05):
        await asyncio.wait_for(started.wait(), 10)
    await until_depth(bench.broker, bench.queue, 1)
    assert bench.events == []


async def test_a_handler_that_does_not_heed_its_cancellation_does_not_keep_the_consumer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries_module, "_HEED", 0.05)
    started, end = asyncio.Event(), asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        started.set()
        while not end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await end.wait()

    await bench.send("a")
    async with bench.consumer(handler, shutdown_timeout=0.05):
        await asyncio.wait_for(started.wait(), 10)
    if bench.address.startswith("amqp"):  # on SQLite it comes again when its lease has run out
        await until_depth(bench.broker, bench.queue, 1)
    end.set()
    assert bench.events == []


async def test_an_at_most_once_message_that_was_in_flight_before_is_dead_as_ambiguous(
    bench: Bench,
) -> None:
    await bench.broker.publish(
        bench.queue,
        Message(body=b"a", message_id="a", headers={"fusewire-at-most-once": True}),
    )
    subscription = await bench.broker.subscribe(bench.queue, prefetch=1)
    await subscription.receive()
    await subscription.release()
    calls = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal calls
        calls += 1

    async with bench.consumer(handler):
        await until(lambda: bench.happened("dead") == ["a"])
    assert calls == 0
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "ambiguous"
