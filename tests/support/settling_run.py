"""A run in which everything fails around payments: its faults, its end, and its verdict."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import sqlite3
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

from fusewire.brokers import Topology, open_broker
from fusewire.errors import BrokerUnavailableError
from fusewire.idempotency._sql import Dialect
from tests.support.idempotent_places import Database
from tests.support.settling import (
    DELAYS,
    OUTCOME_DELAYS,
    ROLES,
    UNSETTLED,
    Run,
    SharedPage,
    payment,
)
from tests.support.settling_verdict import Records, judge
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.processes import KeptProcess
    from tests.support.rabbitmq import OwnRabbitMQ
    from tests.support.settling_verdict import Verdict

_LOOK = 0.05  # seconds between looks at what has died
_LIMIT = 300.0  # seconds until all is settled, once nothing fails any more
_LATE = 5.0  # seconds by which RabbitMQ's counts may be late
_HOUR = 3600.0


class SettlingRun:
    """The processes of a run, and what is done to them.

    Args:
        run: the run.
        rabbitmq: the broker, if it is RabbitMQ, which the run may kill.

    Attributes:
        faults: how often each was made.
    """

    def __init__(self, run: Run, rabbitmq: OwnRabbitMQ | None) -> None:
        self._run = run
        self._rabbitmq = rabbitmq
        self._chance = random.Random(f"{run.seed} faults")
        self._page = SharedPage(run)
        self._processes: dict[str, KeptProcess] = {}
        self._lives: Counter[str] = Counter()
        self._held_down: set[str] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._calls = Topology(run.queue, delays=DELAYS)
        self._outcomes = Topology(f"{run.queue}.replies", delays=OUTCOME_DELAYS)
        self._ledger = Database(Dialect.SQLITE, str(run.file("ledger.db")), None)
        self.faults: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._ledger.create()
        self._rotate()
        self._page.danger = 1.0
        for role in ROLES:
            self._start(role)
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop_keeping()
        for process in self._processes.values():
            process.kill()

    async def until_asked(self, payments: int) -> None:
        """Wait until the shop has asked for so many payments."""
        await until(lambda: self._asked() >= payments, "the shop asks", limit=_LIMIT)

    async def break_until_all_are_asked(self, pause: float) -> None:
        """Make one fault after another, chosen by chance, until all payments were asked for.

        Args:
            pause: seconds between two, on average.
        """
        names = [name.removeprefix("fault_") for name in dir(self) if name.startswith("fault_")]
        while self._asked() < self._run.payments:
            await asyncio.sleep(self._chance.uniform(0, 2 * pause))
            await self.make(self._chance.choice(names))

    async def make(self, name: str) -> None:
        """Make a fault."""
        self.faults[name] += 1
        await getattr(self, f"fault_{name}")()

    async def fault_shop_killed(self) -> None:
        self._processes["shop"].kill()

    async def fault_forwarder_killed(self) -> None:
        self._processes[self._chance.choice(ROLES[1:3])].kill()

    async def fault_server_away(self) -> None:
        async with self._away("server"):
            await self._wait(0.5, 5)

    async def fault_server_hangs(self) -> None:
        server = self._processes["server"]
        server.pause()
        await self._wait(0.5, 4)  # longer than deadlines
        server.resume()

    async def fault_forwarder_hangs(self) -> None:
        forwarder = self._processes[self._chance.choice(ROLES[1:3])]
        forwarder.pause()
        await self._wait(0.5, 4)
        forwarder.resume()

    async def fault_broker_fails_before_payments_are_queued(self) -> None:
        async with self._broker_away():
            async with self._away("server"):
                await self._wait(0.5, 2)
            await self._wait(0.2, 1)

    async def fault_broker_fails_while_payments_are_queued(self) -> None:
        async with self._away("server"):
            await self._wait(0.5, 2)
            async with self._broker_away():
                await self._wait(0.2, 2)
            await self._wait(0.2, 1)

    async def fault_broker_fails_while_payments_are_replayed(self) -> None:
        async with self._away("server"):
            await self._wait(1, 3)
        await self._wait(1, 4)  # until it answers
        async with self._broker_away():
            await self._wait(0.2, 2)

    async def fault_clock_jumps(self) -> None:
        """Set the clocks: of all processes of one machine, or of each, if each has its own."""
        jump = self._chance.uniform(-_HOUR, _HOUR)
        for role in ROLES:
            self._page.set_clock(
                role, self._chance.uniform(-_HOUR, _HOUR) if self._rabbitmq else jump
            )

    async def fault_keys_rotated(self) -> None:
        self._rotate()

    async def fault_keys_missing(self) -> None:
        """Deploy keys without the newest one, for a while."""
        whole = self._run.file("keys.json").read_text()
        older = json.loads(whole)
        if len(older["keys"]) == 1:
            return
        del older["keys"][older["write_with"]]
        older["write_with"] = next(iter(older["keys"]))
        self._write_keys(older)
        self._processes[self._chance.choice(ROLES[1:3])].kill()
        await self._wait(1, 4)
        self._write_keys(json.loads(whole))

    async def end(self) -> None:
        """Let nothing fail any more, wait until all is settled, and end all in order."""
        self._page.danger = 0.0
        for role in ROLES:
            self._page.set_clock(role, 0.0)
        while True:
            await until(self._is_settled, "all is settled", limit=_LIMIT)
            await self._stop_keeping()
            for role in ROLES[:3]:
                status = await asyncio.to_thread(self._processes[role].stop, 60)
                assert status == 0, f"{role} ended with {status}: see its log"
            if await self._stays_empty():
                return
            for role in ROLES[:3]:  # a copy was in flight, and is there again
                self._start(role)
            self._keeper = asyncio.create_task(self._keep())

    async def records(self) -> Records:
        """Return what the server, the shop and the queues have of the payments."""
        async with open_broker(self._run.address) as broker:
            dead = await broker.peek(self._calls.dead, limit=10_000)
            undelivered = await broker.depth(self._outcomes.dead)
        deaths = self._run.file("deaths")
        return Records(
            ledger=Counter(str(name) for (name,) in self._ledger.execute("SELECT * FROM ledger")),
            payments={
                payment(self._run, number): status
                for number, status in self._of_shop("SELECT number, status FROM payments")
            },
            outcomes=self._of_shop("SELECT name, source, kind, final FROM outcomes"),
            dead={str(message.message_id) for message in dead},
            undelivered=undelivered,
            deaths=Counter(deaths.read_text().splitlines() if deaths.exists() else ()),
        )

    def _start(self, role: str) -> None:
        self._lives[role] += 1
        self._processes[role] = self._run.start(role, self._lives[role])

    async def _keep(self) -> None:
        """Start again what has died, after a while."""
        while True:
            for role in ROLES:
                if role not in self._held_down and not self._processes[role].running:
                    await asyncio.sleep(self._chance.uniform(0, 0.5))
                    self._start(role)
            await asyncio.sleep(_LOOK)

    async def _stop_keeping(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None

    @contextlib.asynccontextmanager
    async def _away(self, role: str) -> AsyncIterator[None]:
        self._held_down.add(role)
        self._processes[role].kill()
        yield
        self._held_down.discard(role)

    @contextlib.asynccontextmanager
    async def _broker_away(self) -> AsyncIterator[None]:
        """Kill RabbitMQ for the block; keep the lock on SQLite's file for it."""
        if self._rabbitmq is not None:
            await asyncio.to_thread(self._rabbitmq.kill)
            yield
            await asyncio.to_thread(self._rabbitmq.start)
            return
        path = self._run.address.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as locked:
            locked.execute("BEGIN IMMEDIATE")
            yield
            await self._wait(0, 4)  # longer than storing may take
            locked.execute("ROLLBACK")

    async def _wait(self, least: float, most: float) -> None:
        await asyncio.sleep(self._chance.uniform(least, most))

    def _rotate(self) -> None:
        keys = self._run.file("keys.json")
        stored = json.loads(keys.read_text()) if keys.exists() else {"keys": {}}
        name = f"key-{len(stored['keys'])}"
        stored["keys"][name] = secrets.token_hex(32)
        self._write_keys({"keys": stored["keys"], "write_with": name})

    def _write_keys(self, stored: object) -> None:
        new = self._run.file("keys.new")
        new.write_text(json.dumps(stored))
        new.rename(self._run.file("keys.json"))

    def _of_shop(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self._run.file("shop.db"), timeout=20)) as database:
            return database.execute(query).fetchall()

    def _asked(self) -> int:
        try:
            ((count,),) = self._of_shop("SELECT count(*) FROM payments")
        except sqlite3.OperationalError:  # the shop has not begun yet
            return 0
        return int(count)

    async def _is_settled(self) -> bool:
        open_ones = self._of_shop(
            f"SELECT count(*) FROM payments WHERE status IN {UNSETTLED}"  # noqa: S608 - ours
        )
        return open_ones == [(0,)] and await self._nothing_waits()

    async def _nothing_waits(self) -> bool:
        with contextlib.suppress(BrokerUnavailableError):  # it has been killed just now
            async with open_broker(self._run.address) as broker:
                for topology in (self._calls, self._outcomes):
                    await broker.prepare(topology)  # or it does not know the delay queues
                    for station in (*topology.stations, topology.delayed):
                        if station.kind != "dead" and await broker.depth(station):
                            return False
                return True
        return False

    async def _stays_empty(self) -> bool:
        end = time.monotonic() + (_LATE if self._rabbitmq else 0)
        while await self._nothing_waits():
            if time.monotonic() >= end:
                return True
            await asyncio.sleep(0.1)
        return False


async def run_to_the_end(
    run: Run,
    rabbitmq: OwnRabbitMQ | None,
    break_it: Callable[[SettlingRun], Awaitable[None]],
) -> Verdict:
    """Make a run, and return its verdict."""
    begin = time.monotonic()
    async with SettlingRun(run, rabbitmq) as made:
        await break_it(made)
        await made.until_asked(run.payments)
        await made.end()
        verdict = judge(await made.records())
        verdict.figures |= {
            "faults": dict(sorted(made.faults.items())),
            "seconds": round(time.monotonic() - begin),
        }
        return verdict
