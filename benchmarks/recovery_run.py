"""One recovery run, from the traffic before the outage to the last acknowledgement after it.

1. The server and the replicas start. Each replica handles some new messages, all together at the
   rate of live traffic, so that their breakers know what calls take.
2. Live traffic is measured, with nothing beside it.
3. The server is killed. The messages are published; the circuits open and the messages park.
   There is no live traffic until the server is back: its own circuit would open, and the time
   that it needs to close again is not what is measured.
4. The server and live traffic start again. When its open time is over, a circuit admits the first
   probe: the drain begins. It ends with the last acknowledgement.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.recovery_live import DEADLINE as LIVE_DEADLINE
from benchmarks.recovery_stage import Case, Load, Queue, Stage, source, wait_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from benchmarks.recovery_record import Line

KNOWN_CALLS = 100
"""Calls of each replica before the outage. Twenty make a reference, with an error of a fifth."""

PARKING_LIMIT = 120.0  # seconds, and a second more for every hundred messages
ENDS = frozenset({"handled", "replayed", "dead"})


@dataclass
class Recorded:
    """What one run has written down; times are those of the monotonic clock.

    Attributes:
        began: when the first probe was admitted.
        ended: when the last message was acknowledged, or the time for it was over.
        unsettled: messages that were not, by then.
        load: the machine's load average of a minute, when the drain began and when it ended.
        machine: busy share of all cores during the drain, of whatever ran on the machine.
    """

    case: Case
    server: list[Line] = field(default_factory=list)
    live_before: list[Line] = field(default_factory=list)
    live_during: list[Line] = field(default_factory=list)
    replicas: dict[str, list[Line]] = field(default_factory=dict)
    measured_from: float = 0.0
    killed: float = 0.0
    back: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    unsettled: int = 0
    load: tuple[float, float] = (0.0, 0.0)
    machine: float = 0.0


class Progress:
    """Which messages have parked and which have come to their end, as the replicas say.

    Attributes:
        not_parked: messages that were expected and have not parked.
        not_ended: messages that were expected and have not come to their end.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.not_parked: set[str] = set()
        self.not_ended: set[str] = set()
        self._calls: list[float] = []
        self._answered: dict[str, set[str]] = {}  # by replica; what it has not settled since

    def expect(self, ids: Iterable[str]) -> None:
        """Expect these messages, and no others."""
        self.not_parked = set(ids)
        self.not_ended = set(ids)

    def look(self) -> None:
        """Read what is new.

        Raises:
            ProcessEndedError: a process has ended that should run.
        """
        self._stage.check()
        for name, lines in self._stage.look().items():
            answered = self._answered.setdefault(name, set())
            for line in lines:
                if line["what"] == "call" and line["code"] != "REJECTED":
                    self._calls.append(line["at"])
                    if line["code"] == "OK" and "id" in line:  # an earlier checkout writes none
                        answered.add(line["id"])
                elif line["what"] == "settled":
                    answered.discard(line["id"])
                    if line["outcome"] in ENDS:
                        self.not_ended.discard(line["id"])
                    elif line["outcome"] == "parked":
                        self.not_parked.discard(line["id"])

    def first_call(self, since: float) -> float:
        """Look, and return when the first call was admitted since then; 0 if none was."""
        self.look()
        return min((at for at in self._calls if at >= since), default=0.0)

    def all_parked(self) -> bool:
        """Look, and return whether all expected messages have parked."""
        self.look()
        return not self.not_parked

    def all_ended(self) -> bool:
        """Look, and return whether all expected messages have come to their end."""
        self.look()
        return not self.left()

    def left(self) -> set[str]:
        """Return which have not come to their end, as far as that can be known.

        A replica that is killed between its acknowledgement and its line has ended a message of
        which nobody hears again.
        """
        killed = (ids for name, ids in self._answered.items() if not self._stage.runs(name))
        return self.not_ended.difference(*killed)


async def nothing(_stage: Stage, _queue: Queue) -> None:
    """Let a drain go on undisturbed."""
    await asyncio.Event().wait()


async def run(
    load: Load,
    case: Case,
    url: Callable[[str], str],
    folder: Path,
    meanwhile: Callable[[Stage, Queue], Awaitable[None]] = nothing,
    *,
    late: int = 0,
) -> Recorded:
    """Make one run.

    Args:
        load: of the server.
        case: which server, how many replicas, of which code.
        url: RabbitMQ's address for each replica.
        folder: an empty one, for what the processes write.
        meanwhile: begins with the drain, and is cancelled at its end. If it returns before, the
            run ends there.
        late: replicas that are started, and wait until `meanwhile` lets them begin.
    """
    names = [f"replica-{number}" for number in range(case.replicas)]
    async with source(url(names[0])) as queue:
        with Stage(folder, load, case) as stage:
            steps = _Steps(load, stage, queue, Recorded(case))
            stage.start_server()
            await stage.ready("server")
            # The first makes the queues, so that the others do not meet one that is being made.
            stage.start_replicas(names[:1], url, queue.name)
            await stage.ready(names[0])
            stage.start_replicas(names[1:], url, queue.name)
            await stage.ready(*names)
            held = [f"late-{number}" for number in range(late)]
            stage.start_replicas(held, url, queue.name, held=True)
            await steps.warm_up(case.replicas)
            await steps.before()
            await steps.outage()
            await steps.drain(meanwhile)
            return await steps.end()


class _Steps:
    """The steps of one run, and what it has recorded so far."""

    def __init__(self, load: Load, stage: Stage, queue: Queue, recorded: Recorded) -> None:
        self._load = load
        self._stage = stage
        self._queue = queue
        self._recorded = recorded
        self._progress = Progress(stage)

    async def warm_up(self, replicas: int) -> None:
        """Let each replica handle a few new messages."""
        ids = [f"known-{number}" for number in range(KNOWN_CALLS * replicas)]
        self._progress.expect(ids)
        for one in ids:
            await self._queue.publish([one])
            await asyncio.sleep(random.expovariate(self._load.live))
        await wait_for(self._progress.all_ended, "new messages handled", 60)

    async def before(self) -> None:
        """Measure live traffic, then kill the server."""
        self._stage.start_live("live-before")
        await self._stage.ready("live-before")
        self._recorded.measured_from = time.monotonic()
        await asyncio.sleep(self._load.before)
        self._stage.end("live-before")
        self._recorded.killed = time.monotonic()
        self._stage.end("server", kill=True)

    async def outage(self) -> None:
        """Have all messages parked, and start the server again."""
        self._stage.start_live("live-during")  # it makes no call before the server is back
        ids = [f"parked-{number}" for number in range(self._load.messages)]
        self._progress.expect(ids)
        await self._queue.publish(ids)
        limit = PARKING_LIMIT + self._load.messages / 100
        await wait_for(self._progress.all_parked, "all parked", limit)
        self._stage.start_server()
        self._recorded.back = await self._stage.ready("server", times=2)
        await self._stage.ready("live-during")

    async def drain(self, meanwhile: Callable[[Stage, Queue], Awaitable[None]]) -> None:
        """Wait for the first probe, then for the last acknowledgement."""
        recorded, stage = self._recorded, self._stage
        recorded.began = await wait_for(
            lambda: self._progress.first_call(recorded.back),
            "a probe is admitted",
            2 * (self._load.open_time or 30.0) + 30,
            every=0.02,
        )
        load, busy = _load_average(), _cpu_times()
        beside = asyncio.ensure_future(meanwhile(stage, self._queue))
        try:
            await wait_for(
                lambda: beside.done() or self._progress.all_ended(),
                "all replayed",
                self._load.drain_limit,
            )
            if beside.done():
                await beside
        except TimeoutError:
            print(f"not drained within {self._load.drain_limit:g} s", flush=True)
        finally:
            beside.cancel()
        self._progress.look()
        recorded.unsettled = len(self._progress.left())
        recorded.ended = (
            time.monotonic() if recorded.unsettled else _last_end(stage.replicas.values())
        )
        recorded.load = (load, _load_average())
        recorded.machine = _busy_share(busy, _cpu_times())

    async def end(self) -> Recorded:
        """Collect what was written, once the last live calls have come to their deadline."""
        await asyncio.sleep(LIVE_DEADLINE + 0.5)
        self._progress.look()
        self._recorded.server = self._stage.lines("server")
        self._recorded.live_before = self._stage.lines("live-before")
        self._recorded.live_during = self._stage.lines("live-during")
        self._recorded.replicas = self._stage.replicas
        return self._recorded


def _last_end(replicas: Iterable[list[Line]]) -> float:
    ends: Iterator[float] = (
        line["at"]
        for lines in replicas
        for line in lines
        if line["what"] == "settled" and line["outcome"] in ENDS
    )
    return max(ends)


def _load_average() -> float:
    return float(Path("/proc/loadavg").read_text(encoding="ascii").split()[0])


def _cpu_times() -> tuple[int, int]:
    """Return the ticks that all cores were busy, and all ticks, since the machine started."""
    first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    ticks = [int(word) for word in first.split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle, and idle while it waits for a disk


def _busy_share(before: tuple[int, int], after: tuple[int, int]) -> float:
    return (after[0] - before[0]) / max(1, after[1] - before[1])
