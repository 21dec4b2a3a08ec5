"""A child process of the demo, from the inside: what it reports, and when it ends.

It reports in lines of JSON on its standard output. The parent writes ``go`` to its standard input
to have the load begin, in all children at once, and ``quiet`` to have it end. When that input ends,
the parent is gone, and the child ends too. On SIGTERM it shuts down in order.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fusewire.breaker import StateChanged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.breaker import Event
    from fusewire.parking import MessageEvent

ADDRESS_VARIABLE = "FUSEWIRE_DEMO_BROKER"
"""Environment variable with the broker's address. Everybody can read command lines."""

_END_LIMIT = 15.0
"""Seconds that a child may take to end once its parent is gone."""


class Worker:
    """This process. Create it on the event loop.

    Attributes:
        go: set when the load has to begin.
        quiet: set when it has to end.
        stop: set when the process has to end.
        orphaned: whether the parent is gone.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.quiet = asyncio.Event()
        self.stop = asyncio.Event()
        self.orphaned = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGTERM, self._end)
        logging.basicConfig(
            stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s"
        )
        threading.Thread(target=self._listen, daemon=True, name="listening to the parent").start()

    def send(self, what: str, **details: object) -> None:
        """Send a line to the parent, with the time of the clock that the host's processes share."""
        line = json.dumps({"what": what, "at": time.monotonic(), **details})
        # One write for each line, so that threads do not mix theirs. A parent that is gone
        # reads nothing.
        with suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), line.encode() + b"\n")

    def report_circuit(self, event: Event) -> None:
        """Report a change of a circuit's state; a listener of breakers."""
        if isinstance(event, StateChanged):
            self.send("circuit", state=str(event.new), why=str(event.reason))

    def report_message(self, event: MessageEvent) -> None:
        """Report a message that was settled; a listener of a consumer."""
        self.send(
            "message",
            outcome=str(event.outcome),
            operation=event.operation_id,
            reason=event.reason,
        )

    async def steadily(self, rate: float, do: Callable[[int], Awaitable[None]]) -> None:
        """Start `do(number)` `rate` times a second from go until quiet, and wait for all calls."""
        await self.go.wait()
        begin = self._loop.time()
        number = 0
        async with asyncio.TaskGroup() as group:
            while not self.quiet.is_set():
                # At fixed times: slow calls must not reduce the load.
                group.create_task(_do(do, number))
                number += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(begin + number / rate):
                        await self.quiet.wait()

    def _listen(self) -> None:
        # Not by sys.stdin: a thread that waits in it while Python ends makes it abort.
        heard = b""
        while chunk := os.read(0, 4096):
            *lines, heard = (heard + chunk).split(b"\n")
            for word, event in ((b"go", self.go), (b"quiet", self.quiet)):
                if word in lines:
                    self._call(event.set)
        self.orphaned = True
        self._call(self._end)
        time.sleep(_END_LIMIT)
        os._exit(1)

    def _end(self) -> None:
        self.quiet.set()
        self.go.set()
        self.stop.set()

    def _call(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what)


async def _do(do: Callable[[int], Awaitable[None]], number: int) -> None:
    await do(number)
