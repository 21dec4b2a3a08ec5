"""When and how fast parked messages are given to the handler again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.brokers import Message
from fusewire.parking._circuits import Circuits
from tests.support.messages import until_depth
from tests.support.replica import start as start_replica
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


async def test_replays_keep_to_the_rate_and_new_messages_do_not_wait_for_it(bench: Bench) -> None:
    breaker = bench.registry.get("payments")
    breaker.force_open()
    begun: list[float] = []
    new: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body.startswith(b"new"):
            new.append(message.body.decode())
        else:
            begun.append(time.monotonic())
        await breaker.call_async(asyncio.sleep, 0)

    await bench.send(*(f"m{number}" for number in range(8)))
    async with bench.consumer(handler, depends_on="payments", replay_rate=20):
        await until(lambda: len(bench.happened("parked")) == 8)
        breaker.reset()
        await bench.send("new-1", "new-2", "new-3")
        await until(lambda: len(bench.happened("replayed")) == 8)
        assert len(new) == 3
    assert begun[-1] - begun[0] > 0.25  # seven times 50 ms, less what the first was noted late


async def test_each_outage_ends_with_one_replay_at_a_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = bench.registry.get("payments")
    seen = asyncio.Event()
    wait = Circuits.wait_for_change

    async def wait_for_change(circuits: Circuits, *arguments: Any) -> None:
        seen.set()
        await wait(circuits, *arguments)

    monkeypatch.setattr(Circuits, "wait_for_change", wait_for_change)
    at_work: set[str] = set()
    begun: list[int] = []
    go_on = asyncio.Event()
    go_on.set()
    again = False

    async def handler(message: AbstractIncomingMessage) -> None:
        at_work.add(message.body.decode())
        begun.append(len(at_work))
        if len(at_work) == 3 and not again:
            go_on.clear()  # the next outage finds all places taken
        try:
            await breaker.call_async(asyncio.sleep, 0.05)
            await go_on.wait()
        finally:
            at_work.remove(message.body.decode())

    breaker.force_open()
    await bench.send(*(f"m{number}" for number in range(60)))
    async with bench.consumer(handler, depends_on="payments", replay_concurrency=3):
        await until(lambda: len(bench.happened("parked")) == 60)
        breaker.automatic()
        await until(lambda: not go_on.is_set())
        assert begun[:2] == [1, 1]
        breaker.force_open()
        again = True
        seen.clear()
        go_on.set()
        await until(lambda: not at_work and seen.is_set())
        begun.clear()
        breaker.automatic()
        await until(lambda: len(bench.happened("replayed")) == 60)
    assert begun[:2] == [1, 1]


async def park(bench: Bench, *bodies: str) -> None:
    """Have messages wait in the lane `other`, as if they had been parked."""
    for body in bodies:
        message = Message(body=body.encode(), message_id=body, headers={"fusewire-times-parked": 1})
        await bench.broker.publish(f"{bench.queue}.parked.other", message)


async def test_one_replica_replays_at_a_time_and_another_goes_on_when_it_is_killed(
    bench: Bench, tmp_path: Path
) -> None:
    log = tmp_path / "replica.log"
    bodies = [f"m{number}" for number in range(5)]
    with start_replica(bench.address, bench.queue, log) as replica:
        await until(lambda: log.exists() and log.read_text() == "running\n")
        await park(bench, *bodies)
        await until(lambda: log.read_text() == "running\nm0\n")
        async with bench.consumer(lambda message: None, replay_scope="cluster"):

            async def new_ones_are_handled() -> bool:
                await bench.send("new")  # the replica takes some of them, and never ends
                return bool(bench.happened("handled"))

            await until(new_ones_are_handled)
            assert bench.happened("replayed") == []
            replica.kill()
            await until(lambda: sorted(bench.happened("replayed")) == bodies)
    assert [line for line in log.read_text().split() if line in bodies] == ["m0"]


async def test_a_replica_that_stops_lets_another_replay_at_once(bench: Bench) -> None:
    first: list[str] = []
    second: list[str] = []
    finish = asyncio.Event()

    async def slow(message: AbstractIncomingMessage) -> None:
        first.append(message.body.decode())
        await finish.wait()

    async def quick(message: AbstractIncomingMessage) -> None:
        second.append(message.body.decode())

    async with bench.consumer(slow, replay_scope="cluster") as stopping:
        await park(bench, "a", "b", "c")
        await until(lambda: first == ["a"])
        async with bench.consumer(quick, replay_scope="cluster"):
            await bench.send("new")
            await until(lambda: "new" in [*first, *second])
            stopping.stop()
            finish.set()
            await until(lambda: {"b", "c"} <= set(second))
    assert "a" not in second


async def test_a_message_is_parked_once_while_one_replica_takes_its_circuit_for_open(
    bench: Bench,
) -> None:
    believes_open = BreakerRegistry()
    believes_open.get("payments").force_open()
    effects: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        await asyncio.sleep(0.001)  # so that both replicas get some
        effects.append(message.body.decode())

    options = {"depends_on": "payments", "concurrency": 2}
    bodies = [f"m{number}" for number in range(200)]
    async with (
        bench.consumer(handler, **options),
        bench.consumer(handler, **options, registry=believes_open),
    ):
        await bench.send(*bodies)
        await until(lambda: len(effects) == 200)
        await until(lambda: len(bench.happened("handled")) + len(bench.happened("replayed")) == 200)
    parked = Counter(bench.happened("parked"))
    assert sorted(effects) == sorted(bodies)
    assert parked  # the one has parked, and the other replayed what it had
    assert set(parked.values()) == {1}
    assert set(bench.happened("replayed")) == set(parked)


async def test_what_one_replica_learns_to_be_open_does_not_go_round_and_round(
    bench: Bench,
) -> None:
    """The same in the lane that both serve, since neither knows of the dependency beforehand."""
    believes_open = BreakerRegistry(BreakerSettings(failure_threshold=1, recovery_timeout=0.2))
    mistaken = believes_open.get("payments")
    mistaken.acquire().failure()
    openings = 1
    effects: list[str] = []

    async def sound(message: AbstractIncomingMessage) -> None:
        effects.append(message.body.decode())

    async def cut_off() -> None:
        nonlocal openings
        openings += 1
        raise ConnectionError("this replica alone cannot reach it")

    async def unsound(message: AbstractIncomingMessage) -> None:
        await mistaken.call_async(cut_off)

    bodies = [f"m{number}" for number in range(30)]
    options = {"concurrency": 4, "replay_concurrency": 10}  # so that it leaves some to the other
    async with bench.consumer(unsound, registry=believes_open, **options) as unsound_replica:
        await bench.send(*bodies)
        await until(lambda: len(set(bench.happened("parked"))) == 30)
        await until(lambda: openings >= 4)
        async with bench.consumer(sound):
            # The unsound one makes room for one of these in a second, while it has all it may hold.
            await until(lambda: len(bench.happened("replayed")) >= 5)
            unsound_replica.stop()
            await until(lambda: len(effects) == 30)
    parked = Counter(bench.happened("parked"))
    assert sorted(effects) == sorted(bodies)
    assert max(parked.values()) <= openings
    # Once each at first, and then one more in each open time: the probe that failed.
    assert parked.total() <= 30 + openings


async def test_stopping_lets_replays_finish_and_leaves_the_rest_in_their_lane(bench: Bench) -> None:
    started = asyncio.Event()
    finish = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        started.set()
        await finish.wait()

    async with bench.consumer(handler, replay_concurrency=3) as consumer:
        await park(bench, "a", "b", "c", "d")
        await asyncio.wait_for(started.wait(), 10)
        consumer.stop()
        finish.set()
    assert bench.happened("replayed") == ["a"]
    lane = f"{bench.queue}.parked.other"
    await until_depth(bench.broker, lane, 3)
    # RabbitMQ may give one out with the last acknowledgement: then it comes back behind a peek.
    left = sorted(message.body for message in await bench.broker.peek(lane, limit=9))
    assert left == [b"b", b"c", b"d"]


async def test_a_replay_that_does_not_end_is_cancelled_after_the_limit_and_stays_parked(
    bench: Bench,
) -> None:
    started = asyncio.Event()

    async def handler(message: AbstractIncomingMessage) -> None:
        started.set()
        await asyncio.Event().wait()

    async with bench.consumer(handler, shutdown_timeout=0.05):
        await park(bench, "a", "b")
        await asyncio.wait_for(started.wait(), 10)
    await until_depth(bench.broker, f"{bench.queue}.parked.other", 2)
    assert bench.events == []
