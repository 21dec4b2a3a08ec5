"""A message that kills its process is found, and those beside it are not blamed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aio_pika
import pytest

from fusewire.brokers import Message, Topology
from fusewire.parking import _solitude
from fusewire.parking._history import History
from tests.support import crashing_worker
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench
    from tests.support.processes import KeptProcess

INNOCENT = [f"m{number}" for number in range(9)]


async def supervised(
    start: Callable[[], KeptProcess], over: Callable[[], Awaitable[bool]], *, starts: int
) -> int:
    """Start a worker again whenever it crashes, until it is over; return how often it crashed."""
    for crashes in range(starts):
        worker = start()
        try:
            await until(lambda worker=worker: not worker.running or over(), limit=60)
            if worker.running:
                return crashes
            assert worker.wait(1) == crashing_worker.CRASHED
        finally:
            worker.kill()
    raise AssertionError(f"not over after {starts} starts")


async def classic(bench: Bench, url: str) -> None:
    """Make the source queue a classic one."""
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        await channel.queue_delete(bench.queue)
        await channel.declare_queue(
            bench.queue, durable=True, arguments={"x-queue-type": "classic"}
        )


async def park(bench: Bench, *bodies: str) -> None:
    """Put messages into the lane of what is not declared."""
    lane = Topology(bench.queue, lanes=("other",))
    await bench.broker.prepare(lane)
    for body in bodies:
        message = Message(body=body.encode(), message_id=body, routing_key=bench.queue)
        history = History(
            operation_id=body, queue=bench.queue, dependency="payments", times_parked=1
        )
        await bench.broker.publish(lane.parked("other"), history.to_headers(message))


async def age(bench: Bench, count: int, returns: int) -> None:
    """Have the messages of the queue returned as often as that."""
    for _ in range(returns):
        subscription = await bench.broker.subscribe(bench.queue, prefetch=count)
        for _ in range(count):
            await subscription.receive()
        await subscription.release()


@pytest.mark.parametrize("kind", ["as it comes", "classic", "in a lane", "in order"])
async def test_of_ten_in_flight_the_one_that_kills_the_process_is_dead_and_nine_are_handled(
    bench: Bench, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    if kind == "classic":
        if not bench.address.startswith("amqp"):
            pytest.skip("RabbitMQ's")
        await classic(bench, request.getfixturevalue("amqp_url"))
    await bench.broker.create_queue(f"{bench.queue}.dead")
    log = tmp_path / "log"
    bodies = ["m0", "m1", "poison", *INNOCENT[2:]]
    if kind == "in a lane":
        await park(bench, *bodies)
    else:
        await bench.send(*bodies)
    if kind == "in order":
        if not bench.address.startswith("amqp"):
            pytest.skip("only a queue of RabbitMQ's counts returns that kill no process")
        await age(bench, len(bodies), 13)  # 15 crashes would take too long

    def ended() -> set[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        return {line.removeprefix("ends ") for line in lines if line.startswith("ends ")}

    async def over() -> bool:
        return ended() == set(INNOCENT) and await bench.depth("dead") == 1

    mode = "pause" if kind == "in order" else "park"
    crashes = await supervised(
        lambda: crashing_worker.start(bench.address, bench.queue, log, mode), over, starts=8
    )
    assert crashes <= 6
    (dead,) = await bench.dead()
    assert dead.body == b"poison"
    assert dead.headers["fusewire-reason"] == "crashed"
    assert "fusewire-lone" not in dead.headers
    alone = [line for line in log.read_text().splitlines() if line.startswith("begins poison")]
    assert [line.split()[-1] for line in alone[-3:]] == ["1", "1", "1"]  # nothing beside it


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize(
    ("returns", "circuit", "suspected"),
    [(14, "closed", False), (15, "closed", True), (15, "open", False)],
)
async def test_in_order_fifteen_returns_arouse_suspicion_but_none_in_an_outage(
    bench: Bench,
    caplog: pytest.LogCaptureFixture,
    returns: int,
    circuit: str,
    *,
    suspected: bool,
) -> None:
    dependency = Dependency(bench.registry)
    await bench.send("a")
    await age(bench, 1, returns)
    if circuit == "open":
        dependency.trip()
    async with bench.consumer(dependency, on_open="pause", depends_on="payments", concurrency=1):
        if circuit == "open":
            await until(lambda: "is not consumed while circuit" in caplog.text)
            dependency.recover()
        await until(lambda: bench.happened("handled") == ["a"])
    assert ("may kill its process" in caplog.text) == suspected
    assert bool(bench.happened("delayed")) == suspected


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
async def test_in_order_no_return_of_an_outage_arouses_suspicion_when_it_is_over(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    dependency = Dependency(bench.registry)
    await bench.send("a", "b", "c")
    await age(bench, 3, 15)  # as other replicas do, which wait for the same dependency
    dependency.trip()
    async with bench.consumer(dependency, on_open="pause", depends_on="payments", concurrency=1):
        await until(lambda: "is not consumed while circuit" in caplog.text)
        dependency.recover()
        await until(lambda: len(bench.happened("handled")) == 3)
    assert bench.happened("handled") == ["a", "b", "c"]
    assert "may kill its process" not in caplog.text


@pytest.mark.parametrize("lone", [0, 3], ids=["new", "suspected"])
async def test_twenty_deployments_in_a_row_kill_no_message(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, lone: int
) -> None:
    monkeypatch.setattr(_solitude, "_QUIET", 0.05)
    monkeypatch.setattr(_solitude, "_LONGEST_QUIET", 0.3)
    ended: list[str] = []
    begun = 0
    release = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        nonlocal begun
        begun += 1
        await release.wait()  # for longer than a deployment waits
        ended.append(message.body.decode())

    bodies = [*INNOCENT, "m9"]
    await bench.send(*bodies, headers={"fusewire-lone": lone} if lone else {})
    # With such short delays suspects come all the time, and RabbitMQ redelivers what is on its way
    # to a consumer when that is cancelled.
    options = {"shutdown_timeout": 0, "concurrency": 10, "delays": (0.05, 0.1)}
    for _ in range(20):
        before = begun
        async with bench.consumer(handler, **options):
            await until(lambda before=before: begun > before)
    release.set()
    async with bench.consumer(handler, **options):
        await until(lambda: set(ended) == set(bodies))
        await until(lambda: len(bench.happened("handled")) == 10)
    assert bench.happened("dead") == []
    assert sorted(bench.happened("handled")) == sorted(bodies)


async def test_a_message_under_suspicion_is_handled_with_nothing_beside_it(
    bench: Bench,
) -> None:
    running: set[str] = set()
    beside: dict[str, set[str]] = {}

    async def handler(message: AbstractIncomingMessage) -> None:
        body = message.body.decode()
        beside[body] = set(running)
        for other in running:
            beside[other].add(body)
        running.add(body)
        await asyncio.sleep(0.05)
        running.discard(body)

    await bench.send(*INNOCENT)
    await bench.send("suspect-1", "suspect-2", headers={"fusewire-lone": 1})
    async with bench.consumer(handler, concurrency=20):
        await bench.send("later-1", "later-2")
        await until(lambda: len(bench.happened("handled")) == 13)
    assert beside["suspect-1"] == beside["suspect-2"] == set()
    assert any(beside.values())


async def test_whatever_settles_a_suspect_clears_it(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        raise ValueError("no such account")

    await bench.send("suspect", headers={"fusewire-lone": 2})
    async with bench.consumer(handler, max_attempts=2):
        await until(lambda: bench.happened("dead") == ["suspect"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "exhausted"
    assert "fusewire-lone" not in dead.headers


async def test_a_suspect_does_not_keep_others_forever_from_a_handler_that_does_not_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_solitude, "_LONGEST_WAIT", 0.2)
    go_on = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body == b"slow":
            await go_on.wait()

    await bench.send("slow")
    async with bench.consumer(handler, concurrency=5):
        await bench.send("suspect", headers={"fusewire-lone": 1})
        await until(lambda: "suspect" in bench.happened("delayed"))
        await bench.send("a", "b")
        await until(lambda: {"a", "b"} <= set(bench.happened("handled")))
        assert "suspect" not in bench.happened("handled")
        go_on.set()
        await until(lambda: {"slow", "suspect"} <= set(bench.happened("handled")))


async def test_a_suspect_that_waits_when_the_consumer_stops_is_no_crash(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        await go_on.wait()

    await bench.send("slow")
    for _ in range(5):
        async with bench.consumer(handler, shutdown_timeout=0, delays=(0.05,)):
            await bench.send("suspect", headers={"fusewire-lone": 1})
            await until(lambda: _solitude.process._claim is not None or go_on.is_set())
        bench.events.clear()
    go_on.set()
    async with bench.consumer(handler, delays=(0.05,)):
        await until(lambda: bench.happened("handled").count("suspect") == 5)
    assert bench.happened("dead") == []


@pytest.mark.parametrize("bench", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_connections_that_a_process_survives_make_no_message_a_suspect(
    bench: Bench, amqp_url: str, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    calls = 0
    go_on = asyncio.Event()

    async def handler(_: AbstractIncomingMessage) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await go_on.wait()
            raise ValueError("the first attempt fails, and nobody can be told")

    async def in_flight() -> bool:
        return await bench.broker.depth(bench.queue) == 0

    if kind == "classic":
        await classic(bench, amqp_url)
    await bench.send("a")
    async with bench.consumer(handler, concurrency=3):
        for _ in range(4):
            await until(in_flight)
            await bench.drop_connection()
        await until(in_flight)
        go_on.set()
        await until(lambda: bench.happened("handled") == ["a"])
    assert calls == 2
    assert bench.happened("delayed") == []
    assert "may kill its process" not in caplog.text
