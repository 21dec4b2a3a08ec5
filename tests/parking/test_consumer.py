"""What a consumer promises about a message, on every broker."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import BreakerRegistry, CircuitState
from fusewire.brokers import Message
from fusewire.errors import CircuitOpenError, QueueNotFoundError, SettingsError
from fusewire.operation import current_operation, fallbacks_allowed
from fusewire.parking import ParkingConsumer, Reject
from tests.support.waiting import until

if TYPE_CHECKING:
    import aio_pika
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


class Dependency:
    """Something that handlers call through a breaker, and that can be down."""

    def __init__(self, registry: BreakerRegistry, name: str = "payments") -> None:
        self.breaker = registry.get(name)
        self.down = False
        self.calls = 0
        self.effects: list[str] = []

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        await self.breaker.call_async(self._work, message.body.decode())

    async def _work(self, what: str) -> None:
        self.calls += 1
        if self.down:
            raise ConnectionError("payments is down")
        self.effects.append(what)

    def trip(self) -> None:
        self.down = True
        while self.breaker.can_execute():
            self.breaker.acquire().failure()


async def test_a_message_that_is_handled_is_gone(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    await bench.send("a", "b")
    async with bench.consumer(dependency):
        await until(lambda: len(bench.happened("handled")) == 2)
    assert sorted(dependency.effects) == ["a", "b"]
    assert await bench.broker.depth(bench.queue) == 0


async def test_a_message_parks_without_an_attempt_while_its_declared_circuit_is_open(
    bench: Bench,
) -> None:
    dependency = Dependency(bench.registry)
    bench.registry.get("payments").force_open()
    await bench.send("a", "b", "c")
    async with bench.consumer(dependency, depends_on="payments"):
        await until(lambda: len(bench.happened("parked")) == 3)
        assert dependency.calls == 0
        assert await bench.depth("parked.payments") == 3  # none in anybody's hand
        bench.registry.get("payments").reset()
        await until(lambda: len(bench.happened("replayed")) == 3)
    assert sorted(dependency.effects) == ["a", "b", "c"]
    assert await bench.depth("parked.payments") == 0


async def test_a_dependency_that_is_not_declared_is_learnt_from_the_rejection(bench: Bench) -> None:
    dependency = Dependency(bench.registry, "stock")
    dependency.trip()
    await bench.send("a")
    async with bench.consumer(dependency):
        await until(lambda: bench.happened("parked") == ["a"])
        dependency.down = False
        await until(lambda: bench.happened("replayed") == ["a"])
    assert [event.dependency for event in bench.events if event.happening == "parked"] == ["stock"]


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
        dependency.down = False
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


async def test_a_failed_attempt_is_delayed_and_made_again_while_the_circuit_is_closed(
    bench: Bench,
) -> None:
    attempts: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        attempts.append(message.body.decode())
        if len(attempts) < 3:
            raise ValueError("not yet")

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("handled") == ["a"])
    assert bench.happened("delayed") == ["a", "a"]


async def test_a_message_that_always_fails_is_dead_with_its_story(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        raise ValueError("no such account: 17")

    await bench.send("a", headers={"tenant": "blue"}, correlation_id="c-1")
    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.body == b"a"
    assert dead.correlation_id == "c-1"
    assert dead.headers["tenant"] == "blue"
    assert dead.headers["fusewire-reason"] == "exhausted"
    assert dead.headers["fusewire-attempts"] == 2
    assert dead.headers["fusewire-exception"] == "builtins.ValueError"
    assert dead.headers["fusewire-exception-message"] == "no such account: 17"
    assert "in handler" in str(dead.headers["fusewire-stack"])
    assert dead.headers["fusewire-queue"] == bench.queue


async def test_reject_puts_a_message_aside_at_once(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        raise Reject("the account is closed")

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "rejected"
    assert bench.happened("delayed") == []


async def test_a_poison_message_does_not_hold_the_circuit_open(bench: Bench) -> None:
    effects: list[str] = []
    breaker = bench.registry.get("payments")

    async def work(body: str) -> None:
        if body == "poison":
            raise ConnectionError("it makes the server fail")
        effects.append(body)

    async def handler(message: AbstractIncomingMessage) -> None:
        await breaker.call_async(work, message.body.decode())

    for _ in range(2):
        breaker.acquire().failure()
    await bench.send("poison", "a", "b", "c")
    async with bench.consumer(handler, depends_on="payments", concurrency=1, max_attempts=2):
        await until(lambda: len(effects) == 3)
        await until(lambda: bench.happened("dead") == ["poison"])
    assert sorted(effects) == ["a", "b", "c"]


async def test_a_handler_full_of_process_blocks_runs_unchanged(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process():
            await dependency(message)

    await bench.send("a", "b")
    async with bench.consumer(handler):
        await until(lambda: len(bench.happened("parked")) == 2)
        dependency.down = False
        await until(lambda: len(bench.happened("replayed")) == 2)
    assert sorted(dependency.effects) == ["a", "b"]


async def test_an_error_swallowed_outside_of_process_still_counts(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            async with message.process():
                raise ValueError("broken")  # noqa: TRY301 - the case in question
        except ValueError:
            pass

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])


@pytest.mark.parametrize(
    ("settle", "becomes"),
    [
        (lambda message: message.ack(), "handled"),
        (lambda message: message.reject(), "dead"),
        (lambda message: message.nack(requeue=False), "dead"),
        (lambda message: message.reject(requeue=True), "delayed"),
        (lambda message: message.nack(), "delayed"),
    ],
    ids=["ack", "reject", "nack without requeue", "reject with requeue", "nack"],
)
async def test_what_a_handler_does_to_its_message_means_what_it_meant(
    bench: Bench, settle: object, becomes: str
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        await settle(message)  # type: ignore[operator]

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: "a" in bench.happened(becomes))


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
        dependency.down = False
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
        ids.append(operation.next_key("/pkg.Payments/Charge"))
        await dependency(message)

    await bench.send("a", message_id=None)
    async with bench.consumer(handler):
        await until(lambda: len(bench.happened("parked")) == 1)
        dependency.down = False
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
        dependency.down = False
        await until(lambda: bench.happened("replayed") == ["a"])
    assert allowed[0] is True
    assert allowed[-1] is False


async def test_a_plain_function_runs_in_a_thread_and_parks_too(bench: Bench) -> None:
    breaker = bench.registry.get("payments")
    threads: set[str] = set()
    for _ in range(2):
        breaker.acquire().failure()

    def handler(message: AbstractIncomingMessage) -> None:
        threads.add(threading.current_thread().name)
        breaker.call(lambda: None)

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: bench.happened("parked") == ["a"])
        await until(lambda: bench.happened("replayed") == ["a"])
    assert threading.main_thread().name not in threads


async def test_guard_with_takes_the_permit_around_an_unguarded_handler(bench: Bench) -> None:
    calls = 0

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise ConnectionError("down")

    await bench.send("a", "b", "c")
    async with bench.consumer(handler, guard_with="payments", concurrency=1):
        await until(lambda: "payments" in bench.registry)
        done = ("handled", "replayed")
        await until(lambda: sum(len(bench.happened(what)) for what in done) == 3)
    assert bench.happened("parked")


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
        payments.down = False

        async def in_the_other_lane() -> bool:
            return await bench.depth("parked.stock") == 1

        await until(in_the_other_lane)
        stock.breaker.reset()
        await until(lambda: bench.happened("replayed") == ["a"])
    assert stock.effects == ["a"]


async def test_a_malformed_message_goes_to_the_dead_queue_and_the_rest_go_on(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    await bench.send("bad", headers={"fusewire-format": 99})
    await bench.send("worse", headers={"fusewire-attempts": "many"})
    await bench.send("good")
    async with bench.consumer(dependency):
        await until(lambda: bench.happened("handled") == ["good"])
        await until(lambda: len(bench.happened("dead")) == 2)
    assert {message.headers["fusewire-reason"] for message in await bench.dead()} == {"malformed"}


async def test_a_message_past_its_deadline_is_expired_and_seen(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    await bench.send("late", headers={"fusewire-not-after-ms": 1})
    async with bench.consumer(dependency):
        await until(lambda: bench.happened("dead") == ["late"])
    assert dependency.calls == 0
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "expired"


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
        well.down = False
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
    assert await bench.broker.depth(bench.queue) == 2


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
    assert await bench.broker.depth(bench.queue) == 1


async def test_a_missing_source_queue_is_told_before_anything_runs(bench: Bench) -> None:
    consumer = ParkingConsumer(bench.broker, queue="nowhere", handler=lambda message: None)
    with pytest.raises(QueueNotFoundError, match="nowhere"):
        await consumer.__aenter__()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"concurrency": 0}, "concurrency=0"),
        ({"concurrency": True}, "concurrency=True"),
        ({"replay_concurrency": -1}, "replay_concurrency=-1"),
        ({"replay_rate": 0}, "replay_rate=0"),
        ({"replay_rate": float("inf")}, "replay_rate=inf"),
        ({"max_attempts": 0}, "max_attempts=0"),
        ({"shutdown_timeout": float("nan")}, "shutdown_timeout=nan"),
        ({"delay_tiers": ()}, "delay_tiers"),
        ({"delay_tiers": (5, 1)}, "growing"),
        ({"delay_tiers": (float("nan"),)}, "delay_tiers"),
        ({"queue": ""}, "queue is empty"),
        ({"depends_on": ["a", ""]}, "''"),
        ({"lanes": {"x": "payments"}}, "give a list"),
        ({"lanes": {"x": ["p"], "y": ["p"]}}, "two lanes"),
        ({"handler": None}, "handler=None"),
        ({"address": "redis://localhost"}, "redis"),
    ],
)
async def test_a_wrong_argument_is_named_when_the_consumer_is_made(
    arguments: dict[str, object], named: str
) -> None:
    options: dict[str, object] = {"queue": "q", "handler": lambda message: None, **arguments}
    with pytest.raises(SettingsError, match=named):
        await ParkingConsumer(**options).__aenter__()  # type: ignore[arg-type]


async def test_running_without_entering_says_how(bench: Bench) -> None:
    consumer = ParkingConsumer(bench.broker, queue=bench.queue, handler=lambda message: None)
    with pytest.raises(RuntimeError, match="async with ParkingConsumer"):
        await consumer.run()


async def test_an_at_most_once_message_that_was_in_hand_before_is_dead_as_ambiguous(
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
