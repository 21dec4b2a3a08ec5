"""How fast messages are consumed, parked and replayed, next to plain aio-pika code.

On a real RabbitMQ: a private node of the benchmark's own, or the one at ``--address``. The plain
code (``plain_parking.py``) and ours take turns on the same node, in an order that changes from
round to round: in each, both consume their share with the circuit closed, then both park as many,
then both replay what they parked. The ratio of a round is taken first, and then the median of the
ratios, with the middle half of them as the spread. Both have the same handler, body, prefetch and
kind of queue (quorum). A lap's clock runs from the first settlement to the last, so that it leaves
out connecting. CPU is this process's, of which Python uses one core at most; the node has the rest.

Our replaying lap is that of a consumer that has lived through the outage: it has handled some
messages before its circuit opened, so it knows how long its handler takes, and has then parked what
it replays. None of that counts. With ``--restarted`` it is one that was started in the outage. It
has nothing to compare its replays with, and begins with one message at a time.

The laps are long, because what is asked is the cost of one message. A replay has to find out how
many messages may be in flight, whatever the backlog. In 2,500 messages that would show.

    python -m benchmarks.parking --rounds 15 --json parking.json

It exits with 1 if a target is missed. ``benchmarks/parking_outage.py`` measures memory and how soon
replay begins.
"""

# ruff: noqa: D102 - a lap is a lap

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
import uuid
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika

from benchmarks import plain_parking
from benchmarks.parking_lap import Lap, Stopwatch
from benchmarks.rabbitmq import node
from fusewire.breaker import BreakerRegistry
from fusewire.brokers import Topology
from fusewire.brokers.rabbitmq import Layout
from fusewire.parking import MessageEvent, MessageOutcome, ParkingConsumer, ReplayPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

    from fusewire.breaker import CircuitBreaker

    Handler = Callable[[AbstractIncomingMessage], Awaitable[None]]

DEPENDENCY = "payments"
BODY = b"x" * 1024
BEFORE = 300
"""Messages that are handled before the outage of a replaying lap."""
TARGETS = {"closed": 0.95, "parking": 1.0, "replaying": 0.9}
QUORUM = {"x-queue-type": "quorum"}


class Plain:
    """The plain code's queues, and its laps."""

    def __init__(self, url: str, queue: str, prefetch: int) -> None:
        self.source, self.parked = f"{queue}.plain", f"{queue}.plain.parked"
        self._url = url
        self._prefetch = prefetch

    async def closed(self, handler: Handler, messages: int) -> Lap:
        return await self._handled(self.source, handler, messages)

    async def parking(self, _handler: Handler, messages: int) -> Lap:
        watch = Stopwatch(messages)
        running = await plain_parking.park(
            self._url, self.source, self.parked, prefetch=self._prefetch, note=watch.note
        )
        async with running:
            return await watch.lap()

    async def replaying(self, handler: Handler, messages: int) -> Lap:
        return await self._handled(self.parked, handler, messages)

    async def _handled(self, queue: str, handler: Handler, messages: int) -> Lap:
        watch = Stopwatch(messages)
        running = await plain_parking.handle(
            self._url, queue, handler, prefetch=self._prefetch, note=watch.note
        )
        async with running:
            return await watch.lap()


class Ours:
    """Our queues, and our laps."""

    def __init__(self, url: str, queue: str, prefetch: int) -> None:
        self.source, self.parked = f"{queue}.ours", f"{queue}.ours.parked.{DEPENDENCY}"
        self._url = url
        self._prefetch = prefetch

    async def closed(self, handler: Handler, messages: int) -> Lap:
        watch = Stopwatch(messages)
        async with self._consumer(handler, {MessageOutcome.HANDLED: watch}):
            return await watch.lap()

    async def parking(self, _handler: Handler, messages: int) -> Lap:
        watch = Stopwatch(messages)
        async with self._consumer(_nothing, {MessageOutcome.PARKED: watch}, is_open=True):
            return await watch.lap()

    async def replaying(self, handler: Handler, messages: int) -> Lap:
        watch = Stopwatch(messages)
        async with self._consumer(handler, {MessageOutcome.REPLAYED: watch}):
            return await watch.lap()

    async def replaying_after_an_outage(
        self, handler: Handler, messages: int, ground: Field
    ) -> Lap:
        """Do what :meth:`replaying` does, in the consumer that was there before the outage."""
        outcomes = MessageOutcome.HANDLED, MessageOutcome.PARKED, MessageOutcome.REPLAYED
        handled, parked, replayed = (Stopwatch(number) for number in (BEFORE, messages, messages))
        await ground.empty(self.parked)
        watches = dict(zip(outcomes, (handled, parked, replayed), strict=True))
        async with self._consumer(handler, watches) as breaker:
            await ground.fill(self.source, BEFORE)
            await handled.lap()
            breaker.force_open()
            await ground.fill(self.source, messages)
            await parked.lap()
            breaker.automatic()
            return await replayed.lap()

    @asynccontextmanager
    async def _consumer(
        self,
        handler: Handler,
        watches: dict[MessageOutcome, Stopwatch],
        *,
        is_open: bool = False,
    ) -> AsyncIterator[CircuitBreaker]:
        """Run a consumer for the block; returns its breaker."""
        registry = BreakerRegistry()
        breaker = registry.get(DEPENDENCY)
        if is_open:
            breaker.force_open()

        def hear(event: MessageEvent) -> None:
            watch = watches.get(event.outcome)
            if watch is not None:
                watch.note()

        consumer = ParkingConsumer(
            self._url,
            queue=self.source,
            handler=handler,
            depends_on=DEPENDENCY,
            registry=registry,
            concurrency=self._prefetch,
            replay=ReplayPolicy(concurrency=self._prefetch),
        )
        consumer.add_listener(hear)
        async with consumer:
            running = asyncio.create_task(consumer.run(handle_signals=False))
            try:
                yield breaker
            finally:
                consumer.stop()
                await running


async def _nothing(_message: AbstractIncomingMessage) -> None:
    """Do nothing: what is measured is what stands around a handler."""


async def _a_millisecond(_message: AbstractIncomingMessage) -> None:
    await asyncio.sleep(0.001)


class Field:
    """Fills queues, and looks whether a lap has left them as it should."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel

    async def fill(self, queue: str, messages: int) -> None:
        await asyncio.gather(
            *(
                self._channel.default_exchange.publish(
                    aio_pika.Message(
                        BODY,
                        headers={"tenant": "blue", "trace": "00-4bf92f3577b34da6a3ce929d0e0e4736"},
                        content_type="application/octet-stream",
                        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                        message_id=uuid.uuid4().hex,
                    ),
                    queue,
                )
                for _ in range(messages)
            )
        )

    async def empty(self, queue: str) -> None:
        await (await self._channel.get_queue(queue)).purge()

    async def expect(self, depths: dict[str, int]) -> None:
        """Wait until the queues hold as many.

        Raises:
            RuntimeError: they do not, ten seconds later.
        """
        deadline = time.monotonic() + 10
        while True:
            found = {queue: await self._depth(queue) for queue in depths}
            if found == depths:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"expected {depths}, found {found}")
            await asyncio.sleep(0.05)

    async def _depth(self, queue: str) -> int:
        declared = await self._channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


@asynccontextmanager
async def field(url: str, sides: tuple[Plain, Ours]) -> AsyncIterator[Field]:
    """Make the queues, and remove them after."""
    connection = await aio_pika.connect(url)
    async with connection, connection.channel(on_return_raises=True) as channel:
        for side in sides:
            await channel.declare_queue(side.source, durable=True, arguments=QUORUM)
            await channel.declare_queue(
                side.parked, durable=True, arguments={**QUORUM, "x-overflow": "reject-publish"}
            )
        yield Field(channel)
        plain, ours = sides
        derived = Layout(Topology(ours.source, (DEPENDENCY,))).derived
        for queue in (plain.source, plain.parked, ours.source, *derived):
            await channel.queue_delete(queue)


Laps = dict[str, dict[str, Lap]]  # by kind, by side


async def one_round(
    sides: dict[str, Plain | Ours],
    ground: Field,
    handler: Handler,
    messages: int,
    *,
    restarted: bool,
) -> Laps:
    laps: Laps = {}
    for kind in TARGETS:
        laps[kind] = {}
        for name in random.sample(list(sides), len(sides)):
            side = sides[name]
            if kind != "replaying":
                await ground.fill(side.source, messages)
            if kind == "replaying" and isinstance(side, Ours) and not restarted:
                lap = await side.replaying_after_an_outage(handler, messages, ground)
            else:
                lap = await getattr(side, kind)(handler, messages)
            laps[kind][name] = lap
            left = messages if kind == "parking" else 0
            await ground.expect({side.source: 0, side.parked: left})
    return laps


async def run(
    url: str,
    handler: Handler,
    *,
    rounds: int,
    messages: int,
    prefetch: int,
    queue: str,
    restarted: bool,
) -> list[Laps]:
    plain, ours = Plain(url, queue, prefetch), Ours(url, queue, prefetch)
    sides: dict[str, Plain | Ours] = {"plain": plain, "ours": ours}
    async with field(url, (plain, ours)) as ground:
        once = partial(one_round, sides, ground, handler, messages, restarted=restarted)
        await once()  # not counted: it warms up
        return [await once() for _ in range(rounds)]


def show(found: list[Laps], variant: str) -> tuple[dict[str, dict[str, float]], bool]:
    """Print the figures; return them, and whether every target is met."""
    table: dict[str, dict[str, float]] = {}
    met = True
    for kind, target in TARGETS.items():
        row: dict[str, float] = {}
        for what in ("wall", "cpu"):
            plain = [getattr(laps[kind]["plain"], what) for laps in found]
            ours = [getattr(laps[kind]["ours"], what) for laps in found]
            ratios = [one / other for one, other in zip(plain, ours, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            row |= {
                f"{what}_ratio": middle,
                f"{what}_low": low,
                f"{what}_high": high,
                f"{what}_plain": 1 / statistics.median(plain),
                f"{what}_ours": 1 / statistics.median(ours),
            }
        table[kind] = row
        met &= row["wall_ratio"] >= target
        print(
            "{kind}, {variant}: {wall_ratio:.2f} x ({wall_low:.2f} to {wall_high:.2f}), "
            "{wall_ours:.0f} against {wall_plain:.0f} messages/s; per second of CPU "
            "{cpu_ratio:.2f} x ({cpu_low:.2f} to {cpu_high:.2f}), {cpu_ours:.0f} against "
            "{cpu_plain:.0f}; target {target} x".format(
                kind=kind, variant=variant, target=target, **row
            )
        )
    return table, met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", help="an amqp:// URL; by default a private node is started")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--messages", type=int, default=8000, help="in each lap")
    parser.add_argument("--prefetch", type=int, default=50, help="and concurrency")
    parser.add_argument(
        "--restarted", action="store_true", help="replay in a consumer started in the outage"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    handlers = {"an empty handler": _nothing, "a handler of 1 ms": _a_millisecond}
    tables = {}
    met = True
    with node(arguments.address) as url:
        for variant, handler in handlers.items():
            found = asyncio.run(
                run(
                    url,
                    handler,
                    rounds=arguments.rounds,
                    messages=arguments.messages,
                    prefetch=arguments.prefetch,
                    queue=f"benchmark.{uuid.uuid4().hex[:8]}",
                    restarted=arguments.restarted,
                )
            )
            tables[variant], reached = show(found, variant)
            met &= reached
    if arguments.json:
        arguments.json.write_text(json.dumps(tables, indent=1))
    print("every target is met" if met else "a target is missed")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
