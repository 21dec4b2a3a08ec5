"""A receiver is cancelled at every await of its source; prints what went wrong, as JSON.

``python -m tests.support.cancelled_receiver``: a program of its own, because the awaits of modules
can be watched only from before their import.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from fusewire.testing import InMemoryBroker
from fusewire.testing.faults import Side, arm, awaits_of, disarm, watch
from tests.support.virtual_loop import VirtualLoop

if TYPE_CHECKING:
    from fusewire.testing.faults import Await
    from tests.parking.test_receiver import Bench

MODULES = [f"fusewire.parking.{name}" for name in ("_receiver", "_deliveries", "_places")]
MESSAGES = [*"abcdef", "waits 1", "waits 2", "stuck", *"ghij", "waits 3", "stuck too", *"klmn"]
ENDING = [message for message in MESSAGES if not message.startswith("stuck")]


async def _live(broker: InMemoryBroker, bench: Bench) -> None:
    """Lead a receiver through all that it may meet."""
    receiver = bench.receiver
    await asyncio.sleep(1)
    receiver.resize(4)
    await asyncio.sleep(1)
    bench.end(*"ab")
    await asyncio.sleep(5)
    bench.refusals = 1
    receiver.resize(2)
    await asyncio.sleep(5)
    bench.end(*"cdef")
    await asyncio.sleep(5)
    for subscription in tuple(broker._subscriptions):
        subscription.end()
    bench.refusals = 1
    await asyncio.sleep(10)
    for task in asyncio.all_tasks():
        if task.get_name() == f"receive {bench.queue}":
            task.cancel()
    await asyncio.sleep(10)
    receiver.resize(3)
    await asyncio.sleep(1)
    receiver.leave()
    await asyncio.sleep(700)  # what is stuck is cut off
    bench.end(*ENDING)
    await asyncio.sleep(10)


async def _try(point: Await, side: Side, *, stops: bool) -> tuple[bool, list[str]]:
    """Cancel a receiver at an await; return whether it got there, and what is wrong then."""
    before = asyncio.all_tasks()
    bench_type = import_module("tests.parking.test_receiver").Bench
    async with InMemoryBroker() as broker:
        await broker.create_queue("q")
        bench: Bench = bench_type(broker, "q")
        await bench.send(*MESSAGES)
        running = bench.start(prefetch=2)
        struck = []

        def strike() -> None:
            struck.append(True)
            running.cancel()

        arm(point.place, side, strike=strike)
        await _live(broker, bench)
        if stops:
            bench.stopping.set()
        else:
            running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        disarm()
        await asyncio.sleep(10)
        wrong = []
        if left := asyncio.all_tasks() - before:
            wrong.append(f"tasks run on: {left}")
        if broker._subscriptions:
            wrong.append("a subscription was left open")
        depth = await broker.depth("q")
        settled = set(bench.settled)
        if depth + len(settled) != len(MESSAGES) or len(settled) != len(bench.settled):
            wrong.append(f"{depth} wait, settled were {bench.settled}")
        return bool(struck), wrong


def main() -> None:
    """Try all awaits on both sides."""
    watch(MODULES)
    logging.disable()
    missed, wrong = [], []
    points = awaits_of(MODULES)
    for point, side in itertools.product(points, Side):
        struck = False
        for stops in (True, False):
            with contextlib.closing(VirtualLoop()) as loop:
                reached, found = loop.run(_try(point, side, stops=stops))
            struck |= reached
            wrong += [f"{point.function}, line {point.line}, {side}: {what}" for what in found]
        if not struck:
            missed.append(point.function)
    json.dump({"points": len(points), "missed": missed, "wrong": wrong}, sys.stdout)


if __name__ == "__main__":
    main()
