"""What is between a worker and RabbitMQ is cut, stalled, slow, or loses single frames.

For each fault, a worker behind a proxy of its own goes through an outage of the payments server.
The fault comes while it parks, or while it replays. ``FUSEWIRE_TEST_FAULTS=long`` sends more.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aio_pika
import pytest

from fusewire.testing.faults import Drop, FaultProxy
from tests.faults.armed_worker import FAILS_ONCE
from tests.faults.nursing import Field, Trial, queues
from tests.faults.table import tell
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.nursing import Nursery
    from tests.support.payments import PaymentsProcess

MESSAGES = 1000 if os.environ.get("FUSEWIRE_TEST_FAULTS") == "long" else 40
SOME = 8
"""Messages that go through before the fault comes, and during it."""
IN_HAND = 12
"""Deliveries that a worker has in hand at most: its prefetch, over its three subscriptions."""
LIMIT = 120.0


class Spoiled:
    """A worker, the proxy that it goes through, and how far it has come."""

    def __init__(self, trial: Trial, proxy: FaultProxy, far: Callable[[Trial], int]) -> None:
        self.trial = trial
        self.proxy = proxy
        self._far = far

    async def further(self, by: int = SOME) -> None:
        """Wait until so many more messages are through, or all."""
        goal = min(self._far(self.trial) + by, MESSAGES)
        await until(lambda: self._far(self.trial) >= goal, str(self.trial), limit=LIMIT)

    async def noticed(self) -> None:
        """Wait until the worker is in doubt or connects anew, or all messages are through."""
        doubted, accepted = len(self.trial.doubted), self.proxy.accepted
        await until(
            lambda: (
                len(self.trial.doubted) > doubted
                or self.proxy.accepted > accepted
                or self._far(self.trial) == MESSAGES
            ),
            str(self.trial),
            limit=LIMIT,
        )

    def settled(self) -> list[str]:
        """Return what the worker has settled, as far as it knows."""
        return [operation for what, operation in self.trial.noted() if what == "settled"]

    def cut(self) -> None:
        """Cut; what was acknowledged last may not have come through."""
        self.proxy.cut()
        self.trial.unacknowledged |= set(self.settled()[-IN_HAND:])


async def cuts(spoiled: Spoiled) -> None:
    for _ in range(3):
        spoiled.cut()
        await spoiled.further(3)


async def stalls(spoiled: Spoiled) -> None:
    before = spoiled.settled()
    spoiled.proxy.stall()
    await spoiled.noticed()
    spoiled.cut()
    spoiled.proxy.heal()
    spoiled.trial.unacknowledged |= {*spoiled.settled()[len(before) :], *before[-IN_HAND:]}


async def slows(spoiled: Spoiled) -> None:
    spoiled.proxy.slow(0.05)
    await spoiled.further()
    spoiled.proxy.heal()


async def drops_confirms(spoiled: Spoiled) -> None:
    spoiled.proxy.drop(Drop.CONFIRMS)
    await spoiled.noticed()
    spoiled.proxy.heal()


async def drops_acknowledgements(spoiled: Spoiled) -> None:
    before = spoiled.settled()
    spoiled.proxy.drop(Drop.ACKNOWLEDGEMENTS)
    await until(lambda: spoiled.proxy.dropped >= 3, limit=LIMIT)
    # TCP does not lose what is in the middle: frames go missing where a connection then ends.
    spoiled.cut()
    spoiled.proxy.heal()
    spoiled.trial.unacknowledged |= set(spoiled.settled()[len(before) :])


FAULTS: dict[str, Callable[[Spoiled], Awaitable[None]]] = {
    "connections cut": cuts,
    "connections stalled": stalls,
    "connections slow": slows,
    "confirms dropped": drops_confirms,
    "acknowledgements dropped": drops_acknowledgements,
}


@pytest.fixture
def trials(queue_name: str, forget_queue: Callable[[str], None]) -> list[Trial]:
    made = []
    for number, fault in enumerate(FAULTS):
        endings = [FAILS_ONCE, "", "", ""]  # what fails once is moved in the middle of a replay
        references = [f"{number}-{one}{endings[one % len(endings)]}" for one in range(MESSAGES)]
        trial = Trial(when=fault, queue=f"{queue_name}.{number}", references=references)
        made.append(trial)
        for queue in queues(trial.queue):
            forget_queue(queue)
    return made


class Outage:
    """What the workers of the trials go through together."""

    def __init__(self, trials: list[Trial], nursery: Nursery, payments: PaymentsProcess) -> None:
        self.trials = trials
        self._nursery = nursery
        self._payments = payments

    def made(self, trial: Trial) -> int:
        return len(set(self._payments.references()) & set(trial.references))

    def parked(self, trial: Trial) -> int:
        return len(trial.happened("parked"))

    async def all_parked(self) -> None:
        for trial in self.trials:
            await until(lambda trial=trial: self.parked(trial) == MESSAGES, str(trial), limit=LIMIT)

    async def all_made(self, field: Field) -> None:
        for trial in self.trials:
            await until(lambda trial=trial: self.made(trial) == MESSAGES, str(trial), limit=LIMIT)
            await until(lambda trial=trial: field.empty(trial.queue), str(trial), limit=LIMIT)

    async def end(self) -> dict[str, int | None]:
        """Stop the workers; return the status of each."""
        for trial in self.trials:
            self._nursery.send(trial.pid, signal.SIGTERM)
        for trial in self.trials:
            await until(lambda pid=trial.pid: self._nursery.status(pid) is not None, str(trial))
        return {trial.when: self._nursery.status(trial.pid) for trial in self.trials}

    async def spoiled(
        self, url: str, stack: AsyncExitStack, far: Callable[[Trial], int]
    ) -> list[Spoiled]:
        """Start the workers, each behind a proxy."""
        where = urlsplit(url)
        workers = []
        for trial in self.trials:
            proxy = FaultProxy(where.hostname or "", where.port or 5672)
            await stack.enter_async_context(proxy)
            user = f"{where.username}:{where.password}"
            through = f"amqp://{user}@127.0.0.1:{proxy.port}{where.path}?heartbeat=4"
            trial.pid = self._nursery.start(
                trial, url=through, target=self._payments.target, timeout=2
            )
            workers.append(Spoiled(trial, proxy, far))
        return workers


async def spoil(workers: list[Spoiled]) -> None:
    """Have each worker meet its fault, in the middle of what it does."""

    async def one(worker: Spoiled) -> None:
        await worker.further()
        await FAULTS[worker.trial.when](worker)

    await asyncio.gather(*map(one, workers))


@pytest.fixture
def outage(trials: list[Trial], nursery: Nursery, payments: PaymentsProcess) -> Outage:
    return Outage(trials, nursery, payments)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("during", ["parking", "replaying"])
async def test_a_network_that_breaks_loses_nothing_and_the_worker_goes_on_by_itself(
    amqp_url: str,
    outage: Outage,
    payments: PaymentsProcess,
    pytestconfig: pytest.Config,
    during: str,
) -> None:
    payments.kill()
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await aio_pika.connect(amqp_url))
        field = Field(connection, await stack.enter_async_context(connection.channel()))
        for trial in outage.trials:
            await field.declare(trial.queue)
            await asyncio.gather(*(field.order(trial.queue, one, {}) for one in trial.references))
        far = outage.parked if during == "parking" else outage.made
        workers = await outage.spoiled(amqp_url, stack, far)
        if during == "parking":
            await spoil(workers)
        await outage.all_parked()
        payments.start()
        if during == "replaying":
            await spoil(workers)
        await outage.all_made(field)
        statuses = await outage.end()
        accounts = {t.when: await t.account(field, payments) for t in outage.trials}
    for fault, account in accounts.items():
        tell(pytestconfig, f"{fault} while {during}", [account])
    assert statuses == dict.fromkeys(FAULTS, 0)
    assert [f"{fault}: {account}" for fault, account in accounts.items() if not account.sound] == []
    handled = {fault: len(account.handled) for fault, account in accounts.items()}
    assert handled == dict.fromkeys(FAULTS, MESSAGES)
    assert not any(account.dead for account in accounts.values())
