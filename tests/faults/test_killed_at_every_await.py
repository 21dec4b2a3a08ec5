"""A worker is killed with SIGKILL at every await of the source of move, replay and delay.

The awaits are found in the source. For each, a worker on a queue of its own goes through an outage
of the payments server, on a real RabbitMQ: it parks, delays what fails once and what asks for
another time, replays, and stops. It dies at its await; then a worker that is left alone finishes.
Where the await is one of making queues, the worker begins with none but its source queue, and moves
through an exchange.

``FUSEWIRE_TEST_FAULTS=long`` has every await tried on both sides, in every part of the outage.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import secrets
import signal
import time
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Topology
from fusewire.brokers.rabbitmq import Layout
from fusewire.testing.faults import Side, awaits_of
from tests.faults.fork_server import watched
from tests.faults.kill_case import KillCase
from tests.faults.outage import LONG
from tests.faults.queue_client import QueueClient
from tests.faults.report import add_row, note
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import HeadersType

    from fusewire.testing.faults import Account, Await
    from tests.faults.fork_client import ForkServer
    from tests.support.payments import PaymentsProcess
    from tests.support.rabbitmq import OwnRabbitMQ

AT_A_TIME = 18
AT_MOST_ONCE: HeadersType = {"fusewire-at-most-once": True}
ORDERS: dict[str, HeadersType] = {
    "0-not-twice": AT_MOST_ONCE,
    "1-once": {},
    "2": {},
    "3": {},
    "4-not-twice": AT_MOST_ONCE,  # parked untried: by then the circuit is open
    "5": {},
    "6": {},
    "7-later": {},
    "8-expired": {"fusewire-not-after-ms": 1},
    "9-malformed": {"fusewire-format": 99},
}
"""What each worker gets, and with which headers; besides what follows."""
DOUBTFUL = "doubtful-not-twice"
"""An order not to be made twice that somebody had before."""
PASSING = "passing"
"""An order that is still worth something when it is published, and not for long."""
_PASSES = 1.0
EVERY = (DOUBTFUL, *ORDERS, PASSING)
CERTAIN = 6
"""How many of them take effect whatever is killed."""
DECLARING = "declaring"
DECLARING_MODULES = {"declare"}
"""Modules whose awaits are reached while a worker declares its queues."""
REPLAYING_MODULES = {"line", "participation", "replay", "replay_turn", "replicas"}
"""Modules whose awaits are reached while a lane is replayed."""
WHENS = ("parking", "replaying", "stopping")
"""The parts of the outage."""
STOPPING = {
    "_wake_all_when_stopping",
    "_retire_all",
    "_grant_time",
    "cut_off",
    "give_back_unseen",
    "hand_back",
    "quiesce",
    "release",
    "put_back",
    "_hand_back",
    "put_back_in_source",
    "put_back_suspect",
    "_store_anew",
    "__aexit__",
}
"""Functions that run when a consumer is stopped."""
RESIZING = {"_replace", "drain"}
"""Functions that run when a replay takes more or less than before."""
NOT_ON_THE_WAY = {
    "Declarer.create_queue",
    "RabbitMQBroker._declare_passively",
    "RabbitMQBroker._depth",
    "RabbitMQBroker._peek",
    "RabbitMQBroker._peek_single",
    "RabbitMQBroker.create_queue",
    "RabbitMQBroker.depth",
    "RabbitMQBroker.peek",
    "RabbitMQBroker.publish",
    "RabbitMQBroker.receivers",
}
"""Functions of the broker that no move, replay or delay comes through."""
SETTLING = {
    "Acknowledger.acknowledge",
    "Settler._move",
    "SourceWorker._take",
    "Publisher.publish",
    "RabbitMQDelivery.done",
    "RabbitMQDelivery.move",
}
"""Functions of which no await may be missed: here a message changes queue."""


def cases() -> list[KillCase]:
    points = [point for point in awaits_of(watched()) if point.function not in NOT_ON_THE_WAY]
    if LONG:
        every = itertools.product(points, Side, (*WHENS, DECLARING), (1, 3))
        return [
            KillCase(point=p, side=s, when=w, hit=h)
            for p, s, w, h in every
            if (w == DECLARING) == (usual(p) == DECLARING)
        ]
    sides = itertools.product(points, Side)
    return [KillCase(point=p, side=s, when=usual(p), hit=1) for p, s in sides]


def usual(point: Await) -> str:
    """Return the part of the outage in which an await is likely to be reached."""
    module = point.module.rpartition(".")[2].lstrip("_")
    if module in DECLARING_MODULES:
        return DECLARING
    if point.function.rpartition(".")[2] in STOPPING:
        return "stopping"
    if point.function.rpartition(".")[2] in RESIZING:
        return "replaying"
    return "replaying" if module in REPLAYING_MODULES else "parking"


def missed(tried: list[KillCase]) -> list[Await]:
    return sorted({t.point for t in tried if t.point} - {t.point for t in tried if t.struck})


class Run:
    """The cases of one batch, side by side, through one outage."""

    def __init__(
        self,
        batch: list[KillCase],
        *,
        url: str,
        payments: PaymentsProcess,
        fork_server: ForkServer,
        client: QueueClient,
    ) -> None:
        self._batch = batch
        self._url = url
        self._payments = payments
        self._fork_server = fork_server
        self._client = client

    async def whole(self) -> dict[str, Account]:
        """Go through the outage; return the account of each case."""
        self._payments.kill()
        for case in self._batch:
            await self._order(case)
        for case in self._batch:
            not_after = round((time.time() + _PASSES) * 1000)
            passing = case.references[-1:]
            await self._client.order(case.queue, passing, {"fusewire-not-after-ms": not_after})
            case.pid = self._start(case, armed=True)
        await self._each(self._settled, "parked or dead")
        self._signal(signal.SIGUSR1, "replaying")
        self._signal(signal.SIGUSR1, "stopping")
        self._signal(signal.SIGTERM, "stopping")
        self._payments.start()
        await self._each(self._all_made, "made, or ended")
        self._signal(signal.SIGTERM)
        await self._each(self._ended, "ended")
        clean = [self._start(case, armed=False) for case in self._batch]
        # Where this does not come about, the accounts say what is missing.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                for case in self._batch:
                    await until(lambda case=case: self._finished(case), limit=math.inf)
        for pid in clean:
            self._fork_server.send(pid, signal.SIGTERM)
        for pid in clean:
            await until(lambda pid=pid: self._fork_server.status(pid) is not None)
            assert self._fork_server.status(pid) == 0
        accounts = {str(case): await self._account(case) for case in self._batch}
        for case in self._batch:
            if case.exchange:
                await self._client.clear_away(case.queue, case.exchange)
            else:
                await self._client.purge(Layout(Topology(case.queue)).dead)
        return accounts

    async def _order(self, case: KillCase) -> None:
        doubtful, *usual, _ = case.references
        if case.exchange:
            await self._client.declare(case.queue)
        await self._client.order(case.queue, [doubtful], AT_MOST_ONCE)
        await self._client.get_and_requeue(case.queue)
        for reference, headers in zip(usual, ORDERS.values(), strict=True):
            await self._client.order(case.queue, [reference], headers)

    def _start(self, case: KillCase, *, armed: bool) -> int:
        return self._fork_server.start(
            case, url=self._url, target=self._payments.target, armed=armed
        )

    def _signal(self, signum: int, when: str = "") -> None:
        for case in self._batch:
            if when in {"", case.when}:
                self._fork_server.send(case.pid, signum)

    async def _each(self, come: Callable[[KillCase], Awaitable[bool]], what: str) -> None:
        async def now(case: KillCase) -> bool:
            return await self._ended(case) or await come(case)

        for case in self._batch:
            await until(lambda case=case: now(case), f"{what}: {case}", limit=60)

    async def _ended(self, case: KillCase) -> bool:
        case.status = self._fork_server.status(case.pid)
        return case.status is not None

    async def _settled(self, case: KillCase) -> bool:
        return case.noted("parked", "dead") >= set(case.references)

    async def _all_made(self, case: KillCase) -> bool:
        dead = await self._client.ready(Layout(Topology(case.queue)).dead)
        return {*self._payments.references(), *dead} >= set(case.references)

    async def _finished(self, case: KillCase) -> bool:
        if not case.running or not await self._all_made(case):
            return False
        return await self._client.empty(case.queue)

    async def _account(self, case: KillCase) -> Account:
        assert case.status in {0, -signal.SIGKILL}, f"{case}: ended with {case.status}"
        again = {key.split("/")[0] for key in self._payments.repeated()} - case.noted("doubt")
        assert not [once for once in case.references if once.endswith("twice") and once in again]
        return await case.account(self._client, self._payments)


def test_the_functions_named_here_are_in_the_source_and_have_awaits() -> None:
    points = list(awaits_of(watched()))
    names = {point.function for point in points}
    assert not (NOT_ON_THE_WAY | SETTLING) - names
    assert not (STOPPING | RESIZING) - {name.rpartition(".")[2] for name in names}
    assert {usual(point) for point in points} == {DECLARING, *WHENS}


@pytest.mark.long
@pytest.mark.timeout(7200 if LONG else 480)  # on a loaded machine
async def test_a_worker_killed_at_any_await_loses_nothing_and_repeats_nothing_unexplained(
    broken_rabbitmq: OwnRabbitMQ,
    payments: PaymentsProcess,
    fork_server: ForkServer,
    pytestconfig: pytest.Config,
) -> None:
    accounts: dict[str, Account] = {}
    tried: list[KillCase] = []
    broken_rabbitmq.start()
    url = broken_rabbitmq.url
    client = QueueClient(url)
    names = [f"test-{secrets.token_hex(5)}" for _ in range(AT_A_TIME)]

    async def go(every: list[KillCase]) -> None:
        for first in range(0, len(every), AT_A_TIME):
            batch = every[first : first + AT_A_TIME]
            for case, name in zip(batch, names, strict=False):
                case.queue = name
                if case.when == DECLARING:
                    case.queue = f"{name}-{len(tried)}"
                    case.exchange = f"{case.queue}.moves"
                case.references = [f"{len(tried)}-{order}" for order in EVERY]
                tried.append(case)
            run = Run(batch, url=url, payments=payments, fork_server=fork_server, client=client)
            accounts.update(await run.whole())

    async with contextlib.aclosing(client):
        for name in names:
            await client.declare(name)
        await go(cases())
        if not LONG:  # what was not met where it was looked for may be met elsewhere
            whens = {point: WHENS[usual(point) == WHENS[0]] for point in missed(tried)}
            await go([KillCase(point=p, side=Side.AFTER, when=w, hit=1) for p, w in whens.items()])

    struck = [case for case in tried if case.struck]
    awaits = len({case.point for case in struck})
    fault = f"{len(struck)} workers killed at {awaits} awaits"
    add_row(
        pytestconfig, fault, list(accounts.values()), broker=f"RabbitMQ {broken_rabbitmq.version}"
    )
    if LONG:
        for point in missed(tried):
            note(pytestconfig, f"not met: {point.place} {point.function}")
    assert [f"{what}: {account}" for what, account in accounts.items() if not account.sound] == []
    ended = [len(account.handled) + len(account.dead) for account in accounts.values()]
    assert ended == [len(EVERY)] * len(tried)
    assert min(len(account.handled) for account in accounts.values()) >= CERTAIN
    assert {case.point.function for case in tried if case.point} >= SETTLING
    assert [point for point in missed(tried) if point.function in SETTLING] == []
