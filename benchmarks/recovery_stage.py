"""The processes of one recovery run, and the queue that its replicas consume.

Everything is started through `KeptProcess`, so that it ends with this process, whatever ends that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import aio_pika

from benchmarks.recovery_record import Line, Tail
from fusewire.brokers import Topology
from fusewire.brokers.rabbitmq import Layout
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from types import TracebackType

    from aio_pika.abc import AbstractQueue

ROOT = Path(__file__).parents[1]
LANE = "payments"
START_LIMIT = 120.0  # seconds for all processes to be ready
Beyond = Literal["refuses", "slows"]
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the server can take, and what is asked of it."""

    capacity: float = 200.0  # calls a second
    at_a_time: int = 4
    limit: int = 32  # calls queued
    live_share: float = 1 / 3  # of the capacity
    messages: int = 4000
    before: float = 60.0  # seconds of live traffic that are measured before the outage
    open_time: float | None = None  # seconds; the breaker's default without
    drain_limit: float = 240.0  # seconds

    @property
    def live(self) -> float:
        """Live calls a second."""
        return self.capacity * self.live_share

    @property
    def ideal(self) -> float:
        """Seconds in which the capacity that live calls leave would replay all messages."""
        return self.messages / (self.capacity - self.live)


@dataclass(frozen=True)
class Code:
    """What the replicas run: a checkout with its environment, and the scope of their replays."""

    name: str
    checkout: Path = ROOT
    scope: Literal["replica", "cluster"] = "replica"

    @property
    def python(self) -> Path:
        """The interpreter with the checkout's dependencies."""
        return Path(sys.executable) if self.checkout == ROOT else self.checkout / ".venv/bin/python"


_HERE = Code("")


class ProcessEndedError(Exception):
    """A process of a run ended by itself, so that the run is not worth its figures."""


@dataclass(frozen=True)
class Case:
    """One cell of the table."""

    beyond: Beyond
    replicas: int
    code: Code


class Stage:
    """Starts and ends the processes of one run, in `folder`; a context manager that ends them all.

    Attributes:
        replicas: what each replica has written so far; :meth:`look` adds to it.
    """

    def __init__(self, folder: Path, load: Load, case: Case) -> None:
        self._folder = folder
        self._load = load
        self._case = case
        self._port = reserve_port()
        self._gate = folder / "begin"
        self._running: dict[str, KeptProcess] = {}
        self._tails: dict[str, Tail] = {}
        self.replicas: dict[str, list[Line]] = {}

    def start_server(self) -> None:
        """Start the server, for the first time or again."""
        self._start(
            "server",
            *("--port", str(self._port), "--beyond", self._case.beyond),
            *("--capacity", str(self._load.capacity), "--limit", str(self._load.limit)),
            *("--at-a-time", str(self._load.at_a_time)),
        )

    def start_live(self, name: str) -> None:
        """Start live traffic; each start is written down under a name of its own."""
        self._start(
            "live",
            *("--target", f"127.0.0.1:{self._port}", "--rate", str(self._load.live)),
            name=name,
        )

    def start_replicas(
        self,
        names: Iterable[str],
        url: Callable[[str], str],
        queue: str,
        *,
        held: bool = False,
    ) -> None:
        """Start replicas.

        Args:
            names: of the replicas.
            url: the address of RabbitMQ for each.
            queue: to consume.
            held: they connect only at :meth:`let_begin`. To start Python takes a second of CPU
                each, which should not fall into a drain.
        """
        code = self._case.code
        arguments = ["--queue", queue, "--lane", LANE, "--scope", code.scope]
        arguments += ["--target", f"127.0.0.1:{self._port}"]
        if held:
            arguments += ["--after", str(self._gate)]
        if self._load.open_time:
            arguments += ["--open-time", str(self._load.open_time)]
        for name in names:
            self._start("replica", "--address", url(name), *arguments, name=name, code=code)
            self._tails[name] = Tail(self.path(name))
            self.replicas[name] = []

    def kill(self, name: str) -> None:
        """End a process at once, as a fault would."""
        self._running[name].send(signal.SIGKILL)

    def runs(self, name: str) -> bool:
        """Return whether a process was started and not ended since."""
        return name in self._running

    def let_begin(self) -> None:
        """Let the replicas connect that were held."""
        self._gate.touch()

    def path(self, name: str) -> Path:
        """Return the file in which a process writes."""
        return self._folder / f"{name}.jsonl"

    def lines(self, name: str) -> list[Line]:
        """Return all that a process has written."""
        return Tail(self.path(name)).lines()

    def look(self) -> dict[str, list[Line]]:
        """Read what the replicas have written since the last look, and return it."""
        new = {name: tail.lines() for name, tail in self._tails.items()}
        for name, lines in new.items():
            self.replicas[name] += lines
        return new

    def check(self) -> None:
        """Check that nothing has ended that should run.

        Raises:
            ProcessEndedError: something has.
        """
        for name, process in self._running.items():
            if not process.running:
                log = self.path(name).with_suffix(".log").read_text(errors="replace")
                raise ProcessEndedError(f"{name} has ended: {log[-2000:].strip() or 'no message'}")

    async def ready(self, *names: str, times: int = 1) -> float:
        """Wait until each has written ``ready`` so often; return the time of the last."""
        found = await wait_for(lambda: self._ready(names, times), f"{names} ready", START_LIMIT)
        return max(found)

    def end(self, *names: str, kill: bool = False) -> None:
        """End processes: with SIGTERM, all at once, or SIGKILL."""
        ending = [self._running.pop(name) for name in names]
        for process in ending:
            process.send(signal.SIGKILL if kill else signal.SIGTERM)
        for process in ending:
            process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(*self._running)

    def _ready(self, names: tuple[str, ...], times: int) -> list[float]:
        self.check()
        found = [
            [line["at"] for line in self.lines(name) if line["what"] == "ready"] for name in names
        ]
        return [at[-1] for at in found] if all(len(at) == times for at in found) else []

    def _start(self, program: str, *arguments: str, name: str = "", code: Code = _HERE) -> None:
        name = name or program
        # Both folders named `benchmarks` are then one package, and the first `fusewire` wins: that
        # of the checkout. Its own benchmarks need not have this program.
        environment = os.environ | {"PYTHONPATH": f"{code.checkout}{os.pathsep}{ROOT}"}
        record = self.path(name)
        words: tuple[str | Path, ...] = (
            code.python,
            "-m",
            f"benchmarks.recovery_{program}",
            "--record",
            record,
        )
        self._running[name] = KeptProcess(
            [*words, *arguments],
            env=environment,
            cwd=code.checkout,
            log=record.with_suffix(".log"),
        )


class Queue:
    """The source queue of a run, and its lane."""

    def __init__(self, queue: AbstractQueue) -> None:
        self._queue = queue
        self.name = queue.name

    async def publish(self, ids: Iterable[str]) -> None:
        """Publish a message for each id, a hundred at a time."""
        exchange = self._queue.channel.default_exchange
        waiting: list[str] = []

        async def send() -> None:
            await asyncio.gather(
                *(
                    exchange.publish(
                        aio_pika.Message(
                            one.encode(),
                            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                            message_id=one,
                        ),
                        self.name,
                    )
                    for one in waiting
                )
            )
            waiting.clear()

        for one in ids:
            waiting.append(one)
            if len(waiting) == 100:  # noqa: PLR2004 - a batch
                await send()
        await send()


@asynccontextmanager
async def source(url: str) -> AsyncIterator[Queue]:
    """Make a source queue, and remove it and what was derived from it after."""
    name = f"recovery.{uuid.uuid4().hex[:8]}"
    connection = await aio_pika.connect(url)
    async with connection, connection.channel(on_return_raises=True) as channel:
        queue = await channel.declare_queue(
            name, durable=True, arguments={"x-queue-type": "quorum"}
        )
        try:
            yield Queue(queue)
        finally:
            for one in (name, *Layout(Topology(name, (LANE,))).derived):
                with contextlib.suppress(aio_pika.exceptions.AMQPError):
                    await channel.queue_delete(one)


async def wait_for(condition: Callable[[], _T], what: str, limit: float, every: float = 0.1) -> _T:
    """Wait until `condition()` is true, and return what it gave.

    Raises:
        TimeoutError: it was not, within `limit` seconds.
    """
    deadline = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit:g} s: {what}")
        await asyncio.sleep(every)
    return found
