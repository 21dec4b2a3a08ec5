"""A program with a consumer that is sent signals; prints a line for each thing that happens.

Usage: ``python -m tests.support.signalled <program> <database>``. The programs are the functions of
this module whose names begin with ``in_``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

from fusewire import ParkingConsumer
from fusewire.brokers import Message
from fusewire.brokers.sqlite import SQLiteBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import FrameType

QUEUE = "orders"


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def forever(_: object) -> None:
    """Handle a message without an end, but for a cancellation."""
    say("handling")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("handler cancelled")
        raise


async def idle(_: object) -> None:
    """Handle nothing: the queue is empty."""


class Consumer(ParkingConsumer):
    """Says that it was asked to stop."""

    def stop(self) -> None:
        say("consumer told")
        super().stop()


@contextlib.asynccontextmanager
async def consuming(database: str, handler: Callable[[Any], Any]) -> AsyncIterator[ParkingConsumer]:
    """Enter a consumer, with one message to handle if `handler` is to have one."""
    async with SQLiteBroker(database) as broker:
        await broker.create_queue(QUEUE)
        if handler is forever:
            await broker.publish(QUEUE, Message(body=b"a", message_id="a"))
        async with Consumer(broker, queue=QUEUE, handler=handler, shutdown_timeout=60) as consumer:
            yield consumer


class Server:
    """Takes signals as uvicorn does: by signal.signal, and raises them again when it has ended."""

    signals = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.should_exit = asyncio.Event()
        self.captured: list[int] = []

    def handle_exit(self, number: int, _: FrameType | None) -> None:
        say("server told")
        self.captured.append(number)
        asyncio.get_running_loop().call_soon_threadsafe(self.should_exit.set)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        former = {number: signal.signal(number, self.handle_exit) for number in self.signals}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
        for captured in reversed(self.captured):
            signal.raise_signal(captured)


async def in_a_lifespan(database: str) -> None:
    """Run in the background of a server that is there before."""
    server = Server()
    with server.capture_signals():
        async with consuming(database, idle) as consumer:
            running = asyncio.create_task(consumer.run())
            await asyncio.sleep(0.05)
            say("ready")
            await server.should_exit.wait()
            await running
            say("consumer ended")
        say("server ended")


async def in_front_of_a_server(database: str) -> None:
    """Run beside a server that starts later, and has our handler in its keeping."""
    server = Server()
    async with consuming(database, idle) as consumer:
        running = asyncio.create_task(consumer.run())
        await asyncio.sleep(0.05)
        with server.capture_signals():
            say("ready")
            await server.should_exit.wait()
            say("server ended")
        await running
        say("consumer ended")


async def in_a_server_of_the_loop(database: str) -> None:
    """Run beside a server that uses loop.add_signal_handler, as hypercorn and aiohttp do."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with consuming(database, idle) as consumer:
        running = asyncio.create_task(consumer.run())
        await asyncio.sleep(0.05)
        say("ready")
        await told.wait()
        say("server told")
        await running
        say("consumer ended")


async def in_a_program(database: str) -> None:
    """Run, and do nothing else."""
    async with consuming(database, forever) as consumer:
        await consumer.run()


async def in_a_background(database: str) -> None:
    """Run in a task, while a server that heeds no second signal waits."""
    server = Server()
    with server.capture_signals():
        async with consuming(database, forever) as consumer:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.create_task(consumer.run())
            say("consumer ended")
        server.captured.clear()


async def in_depends_on(database: str) -> None:
    """Run, and be interrupted while a function beside the handler runs on the event loop."""

    def interrupted(_: object) -> str:
        say("asked")
        raise KeyboardInterrupt

    async with SQLiteBroker(database) as broker:
        await broker.create_queue(QUEUE)
        await broker.publish(QUEUE, Message(body=b"a", message_id="a"))
        async with Consumer(broker, queue=QUEUE, handler=idle, depends_on=interrupted) as consumer:
            await consumer.run(handle_signals=False)


async def in_turn(database: str) -> None:
    """Run, and be an ordinary program again afterwards."""
    async with consuming(database, idle) as consumer:
        running = asyncio.create_task(consumer.run())
        await asyncio.sleep(0.05)
        consumer.stop()
        await running
    say("ready")
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(globals()[sys.argv[1]](sys.argv[2]))
    except KeyboardInterrupt:
        say("interrupted")
