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
from fusewire.testing.faults import Side, awaits_of
from tests.faults.field import Field
from tests.faults.nursery import watched
from tests.faults.outage import LONG
from tests.faults.table import note, tell
from tests.faults.trial import Trial
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import HeadersType

    from fusewire.testing.faults import Account, Await
    from tests.faults.nursing import Nursery
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
WHENS = ("parking", "replaying", "stopping")
"""The parts of the outage."""
STOPPING = {
    "_open_gates",
    "_finish",
    "_return",
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
NOT_ON_THE_WAY = {
    "Declarer.create_queue",
    "RabbitMQBroker._peek_single",
    "RabbitMQBroker.audit",
    "RabbitMQBroker.create_queue",
    "RabbitMQBroker.depth",
    "RabbitMQBroker.peek",
    "RabbitMQBroker.publish",
}
"""Functions of the broker that no move, replay or delay comes through."""
SETTLING = {
    "Acknowledger.acknowledge",
    "Desk._carry_out",
    "Intake._take",
    "Publisher.publish",
    "RabbitMQDelivery.done",
    "RabbitMQDelivery.move",
}
"""Functions of which no await may be missed: here a message changes queue."""


def trials() -> list[Trial]:
    points = [point for point in awaits_of(watched()) if point.function not in NOT_ON_THE_WAY]
    if LONG:
        every = itertools.product(points, Side, (*WHENS, DECLARING), (1, 3))
        return [
            Trial(point=p, side=s, when=w, hit=h)
            for p, s, w, h in every
            if (w == DECLARING) == (usual(p) == DECLARING)
        ]
    sides = itertools.product(points, Side)
    return [Trial(point=p, side=s, when=usual(p), hit=1) for p, s in sides]


def usual(point: Await) -> str:
    """Tell in which part of the outage an await is likely to be met."""
    if point.module.endswith(".declaring"):
        return DECLARING
    if point.function.rpartition(".")[2] in STOPPING:
        return "stopping"
    return "replaying" if point.module.endswith(".replay") else "parking"


def missed(tried: list[Trial]) -> list[Await]:
    return sorted({t.point for t in tried if t.point} - {t.point for t in tried if t.struck})


class Run:
    """The trials of one batch, side by side, through one outage."""

    def __init__(
        self,
        batch: list[Trial],
        *,
        url: str,
        payments: PaymentsProcess,
        nursery: Nursery,
        field: Field,
    ) -> None:
        self._batch = batch
        self._url = url
        self._payments = payments
        self._nursery = nursery
        self._field = field

    async def whole(self) -> dict[str, Account]:
        """Go through the outage; return the account of each trial."""
        self._payments.kill()
        for trial in self._batch:
            await self._order(trial)
        for trial in self._batch:
            not_after = round((time.time() + _PASSES) * 1000)
            passing = trial.references[-1:]
            await self._field.order(trial.queue, passing, {"fusewire-not-after-ms": not_after})
            trial.pid = self._start(trial, armed=True)
        await self._each(self._settled, "parked or dead")
        self._signal(signal.SIGUSR1, "replaying")
        self._signal(signal.SIGUSR1, "stopping")
        self._signal(signal.SIGTERM, "stopping")
        self._payments.start()
        await self._each(self._all_made, "made, or ended")
        self._signal(signal.SIGTERM)
        await self._each(self._ended, "ended")
        clean = [self._start(trial, armed=False) for trial in self._batch]
        # Where this does not come about, the accounts say what is missing.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                for trial in self._batch:
                    await until(lambda trial=trial: self._finished(trial), limit=math.inf)
        for pid in clean:
            self._nursery.send(pid, signal.SIGTERM)
        for pid in clean:
            await until(lambda pid=pid: self._nursery.status(pid) is not None)
            assert self._nursery.status(pid) == 0
        accounts = {str(trial): await self._account(trial) for trial in self._batch}
        for trial in self._batch:
            if trial.exchange:
                await self._field.clear_away(trial.queue, trial.exchange)
            else:
                await self._field.purge(Topology(trial.queue).dead)
        return accounts

    async def _order(self, trial: Trial) -> None:
        doubtful, *usual, _ = trial.references
        if trial.exchange:
            await self._field.declare(trial.queue)
        await self._field.order(trial.queue, [doubtful], AT_MOST_ONCE)
        await self._field.give_back(trial.queue)
        for reference, headers in zip(usual, ORDERS.values(), strict=True):
            await self._field.order(trial.queue, [reference], headers)

    def _start(self, trial: Trial, *, armed: bool) -> int:
        return self._nursery.start(trial, url=self._url, target=self._payments.target, armed=armed)

    def _signal(self, signum: int, when: str = "") -> None:
        for trial in self._batch:
            if when in {"", trial.when}:
                self._nursery.send(trial.pid, signum)

    async def _each(self, come: Callable[[Trial], Awaitable[bool]], what: str) -> None:
        async def now(trial: Trial) -> bool:
            return await self._ended(trial) or await come(trial)

        for trial in self._batch:
            await until(lambda trial=trial: now(trial), f"{what}: {trial}", limit=60)

    async def _ended(self, trial: Trial) -> bool:
        trial.status = self._nursery.status(trial.pid)
        return trial.status is not None

    async def _settled(self, trial: Trial) -> bool:
        return trial.noted("parked", "dead") >= set(trial.references)

    async def _all_made(self, trial: Trial) -> bool:
        dead = await self._field.ready(Topology(trial.queue).dead)
        return {*self._payments.references(), *dead} >= set(trial.references)

    async def _finished(self, trial: Trial) -> bool:
        if not trial.running or not await self._all_made(trial):
            return False
        return await self._field.empty(trial.queue)

    async def _account(self, trial: Trial) -> Account:
        assert trial.status in {0, -signal.SIGKILL}, f"{trial}: ended with {trial.status}"
        again = {key.split("/")[0] for key in self._payments.repeated()} - trial.noted("doubt")
        assert not [once for once in trial.references if once.endswith("twice") and once in again]
        return await trial.account(self._field, self._payments)


@pytest.mark.long
@pytest.mark.timeout(3600 if LONG else 240)
async def test_a_worker_killed_at_any_await_loses_nothing_and_repeats_nothing_unexplained(
    broken_rabbitmq: OwnRabbitMQ,
    payments: PaymentsProcess,
    nursery: Nursery,
    pytestconfig: pytest.Config,
) -> None:
    accounts: dict[str, Account] = {}
    tried: list[Trial] = []
    broken_rabbitmq.start()
    url = broken_rabbitmq.url
    field = Field(url)
    names = [f"test-{secrets.token_hex(5)}" for _ in range(AT_A_TIME)]

    async def go(every: list[Trial]) -> None:
        for first in range(0, len(every), AT_A_TIME):
            batch = every[first : first + AT_A_TIME]
            for trial, name in zip(batch, names, strict=False):
                trial.queue = name
                if trial.when == DECLARING:
                    trial.queue = f"{name}-{len(tried)}"
                    trial.exchange = f"{trial.queue}.moves"
                trial.references = [f"{len(tried)}-{order}" for order in EVERY]
                tried.append(trial)
            run = Run(batch, url=url, payments=payments, nursery=nursery, field=field)
            accounts.update(await run.whole())

    async with contextlib.aclosing(field):
        for name in names:
            await field.declare(name)
        await go(trials())
        if not LONG:  # what was not met where it was looked for may be met elsewhere
            whens = {point: WHENS[usual(point) == WHENS[0]] for point in missed(tried)}
            await go([Trial(point=p, side=Side.AFTER, when=w, hit=1) for p, w in whens.items()])

    struck = [trial for trial in tried if trial.struck]
    awaits = len({trial.point for trial in struck})
    fault = f"{len(struck)} workers killed at {awaits} awaits"
    tell(pytestconfig, fault, list(accounts.values()), version=broken_rabbitmq.version)
    if LONG:
        for point in missed(tried):
            note(pytestconfig, f"not met: {point.place} {point.function}")
    assert [f"{what}: {account}" for what, account in accounts.items() if not account.sound] == []
    ended = [len(account.handled) + len(account.dead) for account in accounts.values()]
    assert ended == [len(EVERY)] * len(tried)
    assert min(len(account.handled) for account in accounts.values()) >= CERTAIN
    assert {trial.point.function for trial in tried if trial.point} >= SETTLING
    assert [point for point in missed(tried) if point.function in SETTLING] == []
