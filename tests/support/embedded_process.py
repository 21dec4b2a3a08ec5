"""A process on the embedded broker's file, for tests to kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import threading
import time
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING

import anyio

from fusewire.brokers import SQLiteBroker
from fusewire.brokers.sqlite._store import Store
from fusewire.errors import UnconfirmedError
from tests.support.messages import numbered
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers import Message, Station

_ROOT = Path(__file__).parents[2]
_TASKS = 10  # at once, so that a kill meets several operations in flight


def start(role: str, path: Path, *arguments: object) -> KeptProcess:
    """Start a process that plays `role` on the broker's file."""
    program = [sys.executable, "-m", "tests.support.embedded_process", role, str(path)]
    return KeptProcess([*program, *map(str, arguments)], cwd=_ROOT)


async def hold(path: str, queue: str, count: str, ready: str, lease: str = "3600") -> None:
    """Take messages in flight, make the file `ready`, and never settle them."""
    async with SQLiteBroker(path, lease=float(lease)) as broker:
        subscription = await broker.subscribe(queue, prefetch=int(count))
        for _ in range(int(count)):
            await subscription.receive()
        await anyio.Path(ready).touch()
        await asyncio.Event().wait()


async def move(path: str, source: str, target: str, moved: Callable[[], object] = bool) -> None:
    """Move messages until killed."""
    async with SQLiteBroker(path, lease=3600) as broker:
        subscription = await broker.subscribe(source, prefetch=_TASKS)

        async def work() -> None:
            while True:
                delivery = await subscription.receive()
                await delivery.move(target, delivery.message)
                moved()

        await asyncio.gather(*(work() for _ in range(_TASKS)))


async def move_and_die(path: str, source: str, target: str, count: str, seed: str) -> None:
    """Move `count` messages, go on, and be killed at some point of what follows."""
    left = iter(range(int(count)))
    # A commit takes some tenths of a millisecond, so this meets any point of it.
    timer = threading.Timer(random.Random(seed).random() / 500, os.kill, (os.getpid(), SIGKILL))

    def moved() -> None:
        if next(left, None) is None and not timer.is_alive():
            timer.start()

    await move(path, source, target, moved)


async def publish(path: str, queue: str, count: str, log: str) -> None:
    """Publish numbered messages, and write down each number whose publish has returned."""
    numbers = iter(range(int(count)))
    with open(log, "a", encoding="ascii", buffering=1) as lines:  # noqa: ASYNC230, PTH123 (a line)
        async with SQLiteBroker(path) as broker:

            async def work() -> None:
                for number in numbers:
                    with contextlib.suppress(UnconfirmedError):  # then it is not written down
                        await broker.publish(queue, numbered(number))
                        lines.write(f"{number}\n")

            await asyncio.gather(*(work() for _ in range(_TASKS)))


async def die_in_move(path: str, source: str, target: str) -> None:
    """Move a message, and be killed in the transaction after the original was deleted."""
    store = Store.publish

    def store_and_die(self: Store, to: Station | str, message: Message, delay: float) -> None:
        store(self, to, message, delay)
        os.kill(os.getpid(), SIGKILL)

    Store.publish = store_and_die
    await move(path, source, target)


async def fork(path: str, queue: str, count: str) -> None:
    """Publish without end, and meanwhile fork children that publish a numbered message each."""
    store = Store.publish

    def store_slowly(self: Store, to: Station | str, message: Message, delay: float) -> None:
        store(self, to, message, delay)
        time.sleep(0.05)  # so that a fork meets a transaction

    async def publish_one(number: int) -> None:
        async with SQLiteBroker(path) as broker:
            await broker.publish(queue, numbered(number))

    def fork_one(number: int) -> int:
        child = os.fork()
        if not child:
            try:
                asyncio.run(publish_one(number))
            finally:
                os._exit(0)
        return os.waitpid(child, 0)[1]

    Store.publish = store_slowly
    async with SQLiteBroker(path) as broker:
        await broker.create_queue("others")

        async def work() -> None:
            while True:
                await broker.publish("others", numbered(0))
                await asyncio.sleep(0.02)  # so that others get a turn

        working = asyncio.create_task(work())
        for number in range(int(count)):
            await asyncio.to_thread(fork_one, number)
        working.cancel()


if __name__ == "__main__":
    roles = (hold, move, move_and_die, publish, die_in_move, fork)
    asyncio.run({role.__name__: role for role in roles}[sys.argv[1]](*sys.argv[2:]))
