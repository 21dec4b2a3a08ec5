"""The demo's scenario: a restart under load, an outage, the recovery, and healthy again."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fusewire._validation import invalid
from fusewire.demo._config import THINK_TIME, Plan
from fusewire.demo._course import DOWN, UP, Course
from fusewire.demo._judgement import read_records
from fusewire.demo._metrics import metrics_environment
from fusewire.demo._queues import Queues, demo_queues, is_rabbitmq
from fusewire.demo._report import Report, make_report
from fusewire.demo._subprocesses import Child, DemoError, ended_after, free_port
from fusewire.demo._tally import Tally
from fusewire.demo._worker import ADDRESS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOOK = 0.05  # seconds between checks of a condition
_START_LIMIT = 30.0  # seconds for a process to be ready
_READY = "ready"  # what a server says when it serves
_PORTS = 3  # attempts: another process may take a port before the server starts


class Display(Protocol):
    """Shows the demo while it runs."""

    def say(self, at: float, what: str) -> None:
        """Show a step; `at` is in seconds since the load began."""

    def show(self, course: Course) -> None:
        """Show how it goes; called many times a second."""


class Demo:
    """One run of the demo.

    Args:
        plan: how to run it.
        display: shows each step, and how it goes many times a second.

    Attributes:
        tally: what the processes have reported.
        course: how it goes, or went.
    """

    def __init__(self, plan: Plan, display: Display) -> None:
        self._plan = plan
        self._display = display
        self.tally = Tally()
        self.course = Course(plan, self.tally)
        self._children: list[Child] = []
        self._ready: set[str] = set()  # of the servers

    async def run(self) -> Report:
        """Run it and return the report. By then, every process that it started has ended.

        Raises:
            DemoError: the demo could not be completed.
            BrokerUnavailableError: the broker cannot be reached.
        """
        limit = asyncio.timeout(self._plan.limit)
        try:
            async with limit:
                with _workplace(self._plan.keep) as directory:
                    address = self._plan.broker or f"sqlite:///{directory}/broker.db"
                    async with demo_queues(address) as queues:
                        return await self._run(directory, address, queues)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DemoError(f"the demo did not end within {self._plan.limit:g} s") from error

    async def _run(self, directory: Path, address: str, queues: Queues) -> Report:
        ledger = directory / "payments.db"
        async with AsyncExitStack() as stack:
            server, port = await self._start_server(stack, directory, ledger)
            target = f"127.0.0.1:{port}"
            standby = self._server("standby", directory, ledger, port, "--standby")
            workers = [
                Child(
                    name,
                    [f"fusewire.demo.{name}", target, *arguments],
                    directory=directory,
                    on_line=self.tally.note,
                    environment={
                        ADDRESS_VARIABLE: address,
                        **metrics_environment(self._plan.metrics, name),
                    },
                )
                for name, *arguments in (
                    ("client", queues.charges, str(self._plan.rate)),
                    ("orders", queues.orders, str(self._plan.order_rate)),
                    ("baselines", str(self._plan.rate)),
                )
            ]
            await stack.enter_async_context(ended_after(standby, *workers))
            for child in (standby, *workers):
                await child.start()
                self._children.append(child)
            await self._until(
                lambda: len(self.tally.ready) == len(workers) and "standby" in self._ready,
                _START_LIMIT,
                "the load begins",
            )
            outage = await self._go_through(server, standby, workers)
            await asyncio.gather(*(worker.end() for worker in workers))
            await server.end()
        records = await asyncio.to_thread(read_records, ledger)
        return make_report(
            self.tally,
            records,
            broker="rabbitmq" if is_rabbitmq(address) else "sqlite",
            outage=outage,
        )

    async def _go_through(
        self, server: Child, standby: Child, workers: list[Child]
    ) -> tuple[float, float]:
        """Run the scenario; return when the outage began and ended."""
        self.course.begin()
        for worker in workers:
            worker.send("go")
        self._step("the load begins")
        await self._pass(self._plan.restart)
        await self._restart(server, standby)
        await self._pass(max(self._plan.healthy - self.course.now, 0))
        killed = self._step("the server is killed (SIGKILL)")
        self.course.note_server(DOWN)
        await standby.kill()
        await self._pass(self._plan.outage)
        self._ready.clear()
        await server.start()
        await self._until(lambda: _READY in self._ready, _START_LIMIT, "the server is back")
        back = self._step("the server is back, on the same port and ledger")
        self.course.note_server(UP)
        await self._drain(lambda: self.tally.nothing_waits, "nothing is parked any more")
        await self._pass(self._plan.healthy)
        for worker in workers:
            worker.send("quiet")
        await self._drain(
            lambda: len(self.tally.quiet) == len(workers) and self.tally.all_done,
            "the load has ended, and all is done",
        )
        self.course.stop()
        return killed, back

    async def _restart(self, server: Child, standby: Child) -> None:
        """Replace the server by its standby, as a deployment does that waits for no call."""
        self._step("the server is restarted: killed (SIGKILL), and replaced at once")
        self.course.note_server(DOWN)
        self._ready.clear()
        await server.kill()
        standby.send("serve")
        await self._until(lambda: _READY in self._ready, _START_LIMIT, "the standby serves")
        self.course.note_server(UP)

    def _server(self, name: str, directory: Path, ledger: Path, port: int, *options: str) -> Child:
        return Child(
            name,
            [
                "fusewire.demo.server",
                *("--port", str(port), "--ledger", str(ledger)),
                *("--think-time", str(THINK_TIME), "--kept", *options),
            ],
            directory=directory,
            on_line=lambda _, line: self._ready.add(line["what"]),
        )

    async def _start_server(
        self, stack: AsyncExitStack, directory: Path, ledger: Path
    ) -> tuple[Child, int]:
        for left in reversed(range(_PORTS)):
            port = free_port()
            server = self._server("server", directory, ledger, port)
            await stack.enter_async_context(ended_after(server))
            await server.start()
            self._children = [server]
            try:
                await self._until(lambda: _READY in self._ready, _START_LIMIT, "the server is up")
            except DemoError:
                if not left:
                    raise
            else:
                return server, port
        raise AssertionError("the loop above returns or raises")

    def _step(self, what: str) -> float:
        at = self.course.step(what)
        self._display.say(at, what)
        return at

    async def _pass(self, seconds: float) -> None:
        """Let time pass."""
        end = time.monotonic() + seconds
        await self._until(lambda: time.monotonic() >= end, seconds + _START_LIMIT, "time passes")

    async def _drain(self, done: Callable[[], bool], what: str) -> None:
        """Wait until `done()`, for a limited time, and show the result."""
        end = time.monotonic() + self._plan.drain_limit
        await self._until(
            lambda: done() or time.monotonic() >= end, self._plan.drain_limit + _START_LIMIT, what
        )
        if not done():
            waiting = len(self.tally.payments.waiting), len(self.tally.orders.waiting)
            what = (
                f"NOT within {self._plan.drain_limit:g} s: {what}; still parked are "
                f"{waiting[0]} payments and {waiting[1]} orders"
            )
        self._step(what)

    async def _until(self, condition: Callable[[], bool], limit: float, what: str) -> None:
        """Wait for a condition, and show the current figures meanwhile.

        Raises:
            DemoError: a process ended unexpectedly, or it took too long.
        """
        end = time.monotonic() + limit
        while not condition():
            for child in self._children:
                child.check()
            if time.monotonic() >= end:
                raise DemoError(f"not within {limit:g} s: {what}")
            self._display.show(self.course)
            await asyncio.sleep(_LOOK)


@contextmanager
def _workplace(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="fusewire-demo-") as made:
            yield Path(made).resolve()
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if next(keep.iterdir(), None) is not None:
            raise invalid("keep", "a new or empty folder", str(keep))
    except OSError as error:
        raise invalid("keep", f"a folder that can be made and read ({error})", str(keep)) from error
    yield keep.resolve()
