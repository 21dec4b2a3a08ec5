"""What an outage costs a parking consumer: memory while it parks, and time until it replays.

**Memory.** A consumer in a process of its own parks small messages for as long as they come. What
counts is how much its resident memory grows between the first 10,000 and the last.

**Time.** A circuit opens again and again, messages park, nothing else arrives, and the dependency
is well before the open time ends. What counts is the time from when the breaker would admit a call
until the handler of the first replayed message begins: of a lane that was declared, and of the lane
``other`` for a dependency that was learnt. One message waits in half of the outages, many do in the
others: each of them looks at the breaker when it thinks best.

    python -m benchmarks.parking_outage --openings 30 --json outage.json

It exits with 1 if a target is missed.
"""

# ruff: noqa: D102 - a consumer says what it calls

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
import uuid
from collections import defaultdict
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aio_pika

from benchmarks.rabbitmq import node
from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitState, StateChanged
from fusewire.brokers.rabbitmq import Layout
from fusewire.parking import MessageEvent, MessageOutcome, ParkingConsumer
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aio_pika.abc import AbstractIncomingMessage, AbstractQueue

    from fusewire.breaker import Event

DEPENDENCY = "payments"
BODY = b"x" * 200
BACKLOG = 2000  # messages that the source queue holds at most, while memory is measured
FIRST = 10_000  # messages parked before memory counts
PARKED = 20  # messages in every second outage
OPEN = 1.0  # seconds
PREFETCH = 50
MEBIBYTE = 2**20
TARGETS = {"growth": 10.0, "first": 0.1}  # MiB; seconds


@asynccontextmanager
async def source(url: str) -> AsyncIterator[AbstractQueue]:
    """Make a source queue, and remove it and what was derived from it after."""
    name = f"benchmark.{uuid.uuid4().hex[:8]}"
    connection = await aio_pika.connect(url)
    async with connection, connection.channel(on_return_raises=True) as channel:
        arguments = {"x-queue-type": "quorum"}
        try:
            yield await channel.declare_queue(name, durable=True, arguments=arguments)
        finally:
            consumer = ParkingConsumer(url, queue=name, handler=print, depends_on=DEPENDENCY)
            for queue in (name, *Layout(consumer.topology).derived):
                await channel.queue_delete(queue)


async def publish(queue: AbstractQueue, messages: int) -> None:
    exchange = queue.channel.default_exchange
    await asyncio.gather(
        *(
            exchange.publish(
                aio_pika.Message(
                    BODY,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    message_id=uuid.uuid4().hex,
                ),
                queue.name,
            )
            for _ in range(messages)
        )
    )


@asynccontextmanager
async def running(
    url: str,
    queue: str,
    handler: Callable[[AbstractIncomingMessage], Any],
    hear: Callable[[MessageEvent], None],
    **options: Any,
) -> AsyncIterator[None]:
    """Run a consumer for the block."""
    consumer = ParkingConsumer(url, queue=queue, handler=handler, **options)
    consumer.add_listener(hear)
    async with consumer:
        run = asyncio.create_task(consumer.run(handle_signals=False))
        try:
            yield
        finally:
            consumer.stop()
            await run


def resident() -> int:
    """Return this process's resident memory in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


async def park_all(url: str, queue: str, messages: int) -> None:
    """Park until there are so many; print the resident memory every ten thousand."""
    registry = BreakerRegistry()
    registry.get(DEPENDENCY).force_open()
    parked = 0
    done = asyncio.Event()

    def hear(event: MessageEvent) -> None:
        nonlocal parked
        parked += event.outcome is MessageOutcome.PARKED
        if parked % FIRST == 0:
            print(resident(), flush=True)
        if parked == messages:
            done.set()

    async with running(
        url,
        queue,
        print,
        hear,
        depends_on=DEPENDENCY,
        registry=registry,
        concurrency=PREFETCH,
    ):
        await done.wait()


async def _is_short(queue: AbstractQueue) -> bool:
    return ((await queue.declare()).message_count or 0) <= BACKLOG


async def memory(url: str, messages: int) -> list[int]:
    """Return the resident memory of a consumer in bytes, every ten thousand messages."""
    async with source(url) as queue:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.parking_outage"),
            *("--park", str(messages), "--address", url, "--queue", queue.name),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            for _ in range(0, messages, BACKLOG):
                await publish(queue, BACKLOG)
                await until(lambda: _is_short(queue), limit=60)
            printed, _ = await asyncio.wait_for(child.communicate(), 120)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    return [int(line) for line in printed.split()]


class Outages:
    """A dependency that fails once, so that its circuit opens, and is well again at once."""

    def __init__(self) -> None:
        settings = BreakerSettings(
            failure_threshold=1, recovery_timeout=OPEN, half_open_max_calls=1
        )
        self.registry = BreakerRegistry(settings)
        self._breaker = self.registry.get(DEPENDENCY)
        self._breaker.add_listener(self._changed, StateChanged)
        self._down = False
        self._admits = self._begun = 0.0
        # Operations: a message may go round its lane while it waits, and is then parked again.
        self._happened: defaultdict[MessageOutcome, set[str]] = defaultdict(set)

    async def handler(self, _message: AbstractIncomingMessage) -> None:
        # What is on its way while the circuit opens is refused, and no replay.
        if not self._begun and self._breaker.look().admitted:
            self._begun = time.monotonic()
        await self._breaker.call_async(self._call)

    def hear(self, event: MessageEvent) -> None:
        self._happened[event.outcome].add(event.operation_id)

    async def one(self, queue: AbstractQueue, messages: int) -> float:
        """Return the seconds from the end of the open time to the first replayed message."""
        self._down = True
        self._happened.clear()
        await publish(queue, messages)
        await until(lambda: len(self._happened[MessageOutcome.PARKED]) == messages, limit=30)
        if time.monotonic() >= self._admits:
            raise RuntimeError("parking took longer than the open time: set OPEN higher")
        await until(lambda: len(self._happened[MessageOutcome.REPLAYED]) == messages, limit=30)
        return self._begun - self._admits

    async def _call(self) -> None:
        if self._down:
            raise ConnectionError

    def _changed(self, event: Event) -> None:
        if isinstance(event, StateChanged) and event.new is CircuitState.OPEN:
            self._admits = time.monotonic() + self._breaker.look().retry_after
            self._begun = 0.0
            self._down = False


async def first_replays(url: str, openings: int, *, learnt: bool) -> list[float]:
    """Return what the first replayed message waited, in seconds, for each opening."""
    outages = Outages()
    options: dict[str, Any] = {} if learnt else {"depends_on": DEPENDENCY}
    async with (
        source(url) as queue,
        running(
            url, queue.name, outages.handler, outages.hear, registry=outages.registry, **options
        ),
    ):
        return [await outages.one(queue, PARKED if number % 2 else 1) for number in range(openings)]


def show_memory(samples: list[int]) -> tuple[dict[str, Any], bool]:
    growth = (samples[-1] - samples[0]) / MEBIBYTE
    print(
        f"resident memory: {samples[0] / MEBIBYTE:.1f} MiB with {FIRST} parked, "
        f"{samples[-1] / MEBIBYTE:.1f} MiB with {FIRST * len(samples)}; {growth:.1f} MiB more, "
        f"target {TARGETS['growth']:.0f}"
    )
    return {"bytes": samples, "growth_mib": growth}, growth <= TARGETS["growth"]


def show_first(lane: str, found: list[float]) -> tuple[dict[str, Any], bool]:
    low, middle, high = (value * 1000 for value in statistics.quantiles(found, n=4))
    most = max(found) * 1000
    print(
        f"first replayed message, {lane}: {middle:.0f} ms after the open time "
        f"({low:.0f} to {high:.0f}), at most {most:.0f} ms, in {len(found)} openings; "
        f"target {TARGETS['first'] * 1000:.0f}"
    )
    return {"median_ms": middle, "low_ms": low, "high_ms": high, "max_ms": most}, (
        most <= TARGETS["first"] * 1000
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", help="an amqp:// URL; by default a private node is started")
    parser.add_argument("--messages", type=int, default=200_000, help="parked in all")
    parser.add_argument("--openings", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--park", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--queue", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.park:
        asyncio.run(park_all(arguments.address, arguments.queue, arguments.park))
        return 0
    table: dict[str, Any] = {}
    met = []
    with node(arguments.address) as url:
        for lane, learnt in (("declared lane", False), ("lane other", True)):
            found = asyncio.run(first_replays(url, arguments.openings, learnt=learnt))
            table[lane], reached = show_first(lane, found)
            met.append(reached)
        table["memory"], reached = show_memory(asyncio.run(memory(url, arguments.messages)))
        met.append(reached)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1))
    print("every target is met" if all(met) else "a target is missed")
    return 0 if all(met) else 1


if __name__ == "__main__":
    raise SystemExit(main())
