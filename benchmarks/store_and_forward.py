"""What a receipt costs, next to the least that stores a call, and how fast calls are forwarded.

A receipt is a whole call: rejected by an open circuit, stored, and answered with PENDING. Next to
it stands the least that is durable: a row inserted into a file, from a thread where the event loop
must not wait, or a message that RabbitMQ has confirmed, by aio-pika. Both take turns, a block of
calls each, so that what disturbs the machine disturbs both. A ratio is of one pair of blocks; what
is printed is the median of the pairs, with the middle half of them. A second row is with
encryption.

By default a call follows the other at once, which keeps the broker awake, and the processor's
caches warm for a loop that does little else. ``--rest 0.01`` lets 10 ms pass before each call of
both, as in a shop that is not at its limit.

Forwarding stands next to a loop that takes messages from the same broker, makes the same calls and
acknowledges, on a guarded channel and on a bare one.

Both sides of a receipt wait once for the disk. Beside a disk that is slower by some time, that time
is added to both: the column "1 ms" says what is left of the ratio where a sync takes 1 ms.

    python -m benchmarks.store_and_forward --pairs 11 --json store_and_forward.json

It exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from concurrent import futures
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aio_pika
import anyio.to_thread
import grpc
import grpc.aio

from benchmarks.forwarding_rates import BODY, CHARGE, POLICY, RATES, rates
from benchmarks.rabbitmq import node
from fusewire.breaker import BreakerRegistry
from fusewire.forwarding import Encryption, KeyRing, ParkedCalls
from fusewire.interceptors import aio_interceptors, guard
from tests.support.ports import reserve_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

SLOW_SYNC = 1e-3  # seconds

RECEIPTS = {
    "asyncio, SQLite ÷ insert in a thread": 1.8,
    "sync, SQLite ÷ bare insert": 2.5,
    "asyncio, RabbitMQ ÷ confirmed publish": 1.5,
    "sync, RabbitMQ ÷ confirmed publish from a thread": 1.3,
}


def encryption() -> Encryption:
    ring = KeyRing({"k": os.urandom(32)}, write_with="k")
    return Encryption(lambda: ring)


def opened() -> BreakerRegistry:
    registry = BreakerRegistry()
    registry.get(CHARGE).force_open()
    return registry


# -- the least that is durable -------------------------------------------------------------------


@contextmanager
def table(folder: Path) -> Iterator[Callable[[], None]]:
    """Give a function that inserts a row as durably as ours."""
    connection = sqlite3.connect(
        folder / f"{uuid.uuid4().hex}.db", check_same_thread=False, isolation_level=None
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, method TEXT, body BLOB)")

    def insert() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO calls (method, body) VALUES (?, ?)", (CHARGE, BODY))
        connection.execute("COMMIT")

    yield insert
    connection.close()


async def publisher(url: str) -> tuple[Any, Callable[[], Awaitable[None]]]:
    """Return a connection, and a function that publishes to a quorum queue, and awaits it."""
    connection = await aio_pika.connect(url)
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    queue = f"bench-{uuid.uuid4().hex}"
    await channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})

    async def publish() -> None:
        message = aio_pika.Message(
            BODY, headers={"method": CHARGE}, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        await channel.default_exchange.publish(message, queue, mandatory=True)

    return connection, publish


# -- pairs of blocks -----------------------------------------------------------------------------


async def block(step: Callable[[], Awaitable[None]], count: int, rest: float) -> float:
    """Return the median seconds of a step, with seconds of rest before each."""
    took = []
    for _ in range(count):
        if rest:
            await asyncio.sleep(rest)
        began = time.perf_counter()
        await step()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def sync_block(step: Callable[[], object], count: int, rest: float) -> float:
    """Do the same for a step that blocks."""
    took = []
    for _ in range(count):
        if rest:
            time.sleep(rest)
        began = time.perf_counter()
        step()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


async def pairs_of(
    ours: Callable[[], Awaitable[float]], theirs: Callable[[], Awaitable[float]], number: int
) -> list[tuple[float, float]]:
    """Measure pairs of blocks, after one that warms up, in turns of order."""
    pairs = []
    for index in range(number + 1):
        if index % 2:
            their, our = await theirs(), await ours()
        else:
            our, their = await ours(), await theirs()
        pairs.append((our, their))
    return pairs[1:]


def sync_seconds(folder: Path) -> float:
    """Return what one sync of this disk takes."""
    with (folder / "sync").open("wb") as file:

        def sync() -> None:
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())

        return sync_block(sync, 200, 0)


# -- receipts ------------------------------------------------------------------------------------


async def aio_receipts(
    address: str,
    least: Callable[[], Awaitable[None]],
    options: argparse.Namespace,
    **more: Any,
) -> list[tuple[float, float]]:
    registry = opened()
    calls = ParkedCalls(
        address,
        queue=f"bench-{uuid.uuid4().hex}",
        registry=registry,
        methods={CHARGE: POLICY},
        **more,
    )
    async with calls:
        interceptors = aio_interceptors(registry=registry, fallbacks=calls.fallbacks())
        async with grpc.aio.insecure_channel("127.0.0.1:1", interceptors=interceptors) as channel:
            charge = channel.unary_unary(CHARGE)

            async def step() -> None:
                await charge(BODY, timeout=5)

            return await pairs_of(
                partial(block, step, options.calls, options.rest),
                partial(block, least, options.calls, options.rest),
                options.pairs,
            )


async def sync_receipts(
    address: str,
    least: Callable[[], object],
    options: argparse.Namespace,
    **more: Any,
) -> list[tuple[float, float]]:
    """Measure in one thread, in which no event loop runs."""
    registry = opened()
    calls = ParkedCalls(
        address,
        queue=f"bench-{uuid.uuid4().hex}",
        registry=registry,
        methods={CHARGE: POLICY},
        **more,
    )
    with (
        futures.ThreadPoolExecutor(1) as thread,
        calls,
        guard(
            grpc.insecure_channel("127.0.0.1:1"), registry=registry, fallbacks=calls.fallbacks()
        ) as channel,
    ):
        step = partial(channel.unary_unary(CHARGE), BODY, timeout=5)

        async def measure(what: Callable[[], object]) -> float:
            submitted = thread.submit(sync_block, what, options.calls, options.rest)
            return await asyncio.wrap_future(submitted)

        return await pairs_of(partial(measure, step), partial(measure, least), options.pairs)


async def receipts(
    url: str, folder: Path, options: argparse.Namespace, **more: Any
) -> dict[str, list[tuple[float, float]]]:
    """Measure all four, one pair of blocks after the other."""
    file = f"sqlite:///{folder}/{uuid.uuid4().hex}.db"
    connection, publish = await publisher(url)
    loop = asyncio.get_running_loop()

    def publish_from_thread() -> None:
        asyncio.run_coroutine_threadsafe(publish(), loop).result()

    with table(folder) as insert:
        async with connection:
            names = iter(RECEIPTS)
            in_thread = partial(anyio.to_thread.run_sync, insert)
            return {
                next(names): await aio_receipts(file, in_thread, options, **more),
                next(names): await sync_receipts(file, insert, options, **more),
                next(names): await aio_receipts(url, publish, options, **more),
                next(names): await sync_receipts(url, publish_from_thread, options, **more),
            }


# -- what is printed -----------------------------------------------------------------------------


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:  # noqa: PLR2004 - one has none
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def show(name: str, ratios: list[float], more: str, target: str) -> None:
    low, middle, high = quartiles(ratios)
    print(f"{name:52} {middle:5.2f} ({low:.2f} to {high:.2f}) {more:34} {target}", flush=True)


def show_receipts(
    found: dict[str, list[tuple[float, float]]], sync: float, *, judged: bool
) -> list[str]:
    """Print receipts; return the names of targets that are missed."""
    missed = []
    slower = max(SLOW_SYNC - sync, 0.0)
    for name, pairs in found.items():
        ratios = [our / their for our, their in pairs]
        ours = statistics.median(our for our, _ in pairs)
        at_1_ms = statistics.median((our + slower) / (their + slower) for our, their in pairs)
        more = f"{ours * 1e6:5.0f} µs; 1 ms: {at_1_ms:.2f}"
        show(name, ratios, more, f"at most {RECEIPTS[name]}" if judged else "")
        if judged and statistics.median(ratios) > RECEIPTS[name]:
            missed.append(name)
    return missed


async def measure(url: str, folder: Path, options: argparse.Namespace) -> int:
    sync = sync_seconds(folder)
    print(f"a sync of this disk takes {sync * 1e6:.0f} µs; {options.pairs} pairs of blocks\n")
    print("a receipt ÷ the least that is durable, p50")
    plain_receipts = await receipts(url, folder, options)
    missed = show_receipts(plain_receipts, sync, judged=True)
    print("\nthe same, encrypted")
    encrypted = await receipts(url, folder, options, encryption=encryption())
    show_receipts(encrypted, sync, judged=False)
    print("\ncalls forwarded in a second ÷ those of a plain loop, RabbitMQ")
    found = await rates(url, options)
    for name, laps in found.items():
        ratios = [our / their for our, their in laps]
        ours = statistics.median(our for our, _ in laps)
        show(f"a {name} channel", ratios, f"{ours:5.0f}/s", f"at least {RATES[name]}")
        if statistics.median(ratios) < RATES[name]:
            missed.append(f"a {name} channel")
    if options.json:
        text = json.dumps({"receipts": plain_receipts, "encrypted": encrypted, "rates": found})
        await asyncio.to_thread(Path(options.json).write_text, text, "utf-8")
    print("\n" + (f"missed: {'; '.join(missed)}" if missed else "all targets are met"))
    return int(bool(missed))


def main() -> int:
    parser = argparse.ArgumentParser(description="What a receipt costs.")
    parser.add_argument("--amqp", help="a RabbitMQ that may be used; by default a private node")
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--calls", type=int, default=100, help="in a block")
    parser.add_argument("--rest", type=float, default=0.0, help="seconds before each call")
    parser.add_argument("--laps", type=int, default=5, help="of forwarding")
    parser.add_argument("--forwarded", type=int, default=1600, help="calls of a lap")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--json")
    options = parser.parse_args()
    options.port = options.port or reserve_port()
    logging.disable(logging.WARNING)  # circuits are opened by hand, and lanes fill
    with tempfile.TemporaryDirectory() as folder, node(options.amqp) as url:
        return asyncio.run(measure(url, Path(folder), options))


if __name__ == "__main__":
    sys.exit(main())
