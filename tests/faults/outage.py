"""An outage of the payments server that a worker goes through, with one more fault in the middle.

The worker parks what comes in, and replays it when the server is back. The fault strikes while it
parks, or while it replays. It must go on by itself, and every message must be accounted for.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fusewire.brokers import Topology
from fusewire.parking import MessageOutcome
from fusewire.testing.faults import FaultProxy
from fusewire.testing.faults._journal import DOUBT, ENDED, REFUSED, SETTLED
from tests.faults.armed_worker import DELAY_TIERS, FAILS_ONCE, LANE
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.testing.faults import Account
    from tests.faults.fork_client import ForkServer
    from tests.faults.kill_case import KillCase
    from tests.faults.queue_client import QueueClient
    from tests.support.payments import PaymentsProcess
    from tests.support.rabbitmq import OwnRabbitMQ

LONG = os.environ.get("FUSEWIRE_TEST_FAULTS") == "long"
PARKING, REPLAYING = "parking", "replaying"
LIMIT = 400.0 if LONG else 60.0  # seconds that one step may take
TIME_LIMIT = 3 * LIMIT
FEW = 200 if LONG else 10
"""Messages that go through before the fault comes, and after a step of it."""
TIMEOUT = 2.0  # seconds that a worker gives RabbitMQ for one operation


class Outage:
    """A worker, what it stands between, and how far it has come.

    Attributes:
        case: the worker's queue, messages and journals.
        during: when the fault strikes.
        topology: the worker's queues.
    """

    def __init__(
        self,
        case: KillCase,
        during: str,
        *,
        rabbitmq: OwnRabbitMQ,
        client: QueueClient,
        payments: PaymentsProcess,
        fork_server: ForkServer,
    ) -> None:
        self.case = case
        self.during = during
        self.rabbitmq = rabbitmq
        self.client = client
        self.payments = payments
        self._fork_server = fork_server
        self.topology = Topology(case.queue, (LANE,), DELAY_TIERS)

    @property
    def delayed(self) -> set[str]:
        """The operations that wait until their delay is over, or have come back from it."""
        return self.case.moved_last_to(str(self.topology.delayed))

    @property
    def lane(self) -> str:
        """The queue where its messages are parked."""
        return str(self.topology.parked(LANE))

    def start_worker(self, url: str) -> None:
        """Start a worker."""
        self.case.pid = self._fork_server.start(
            self.case, url=url, target=self.payments.target, timeout=TIMEOUT
        )

    async def stop_worker(self) -> None:
        """Ask the worker to end, and see that it has ended as it should."""
        pid = self.case.pid
        await self.come(lambda: self.case.running, "running")
        self._fork_server.send(pid, signal.SIGTERM)
        await until(
            lambda: self._fork_server.status(pid) is not None, f"end: {self.case}", limit=60
        )
        self.case.status = self._fork_server.status(pid)
        assert self.case.status == 0, f"{self.case}: ended with {self.case.status}"

    async def order(self, references: list[str]) -> None:
        """Publish more."""
        self.case.references += references
        await self.client.order(self.case.queue, references, {})

    def more(self, count: int, *, failing: bool = True) -> list[str]:
        """Name further orders; every fourth fails once, where `failing`."""
        begin = len(self.case.references)
        endings = [FAILS_ONCE if failing else "", "", "", ""]
        return [f"{one}{endings[one % len(endings)]}" for one in range(begin, begin + count)]

    async def come(self, condition: Callable[[], Awaitable[bool] | bool], what: str) -> None:
        """Wait for `condition`, for as long as the worker lives."""

        async def now() -> bool:
            status = self._fork_server.status(self.case.pid)
            assert status is None, f"{self.case}: ended with {status}, not {what}"
            came = condition()
            return came if isinstance(came, bool) else await came

        await until(now, f"{what}: {self.case}", limit=LIMIT)

    def far(self) -> int:
        """Count what is through, of what goes on when the fault strikes."""
        return len(self.case.parked) if self.during == PARKING else self.payments.charges()

    async def further(self, by: int = FEW) -> None:
        """Wait until so many more messages are through, or all."""
        goal = min(self.far() + by, len(self.case.references) - len(self.case.removed))
        await self.come(lambda: self.far() >= goal, f"{goal} through")

    async def all_parked(self) -> None:
        every = set(self.case.references)

        async def there() -> bool:
            # Of what is in doubt, one copy is parked already, and perhaps one comes again.
            known = self.case.noted(MessageOutcome.PARKED, DOUBT) | self.case.removed
            return known >= every and not await self.client.count(self.case.queue)

        await self.come(there, "parked")

    async def all_made(self) -> None:
        every = set(self.case.references)

        def there() -> bool:
            # What was removed may have been made before, so the number alone says too little.
            return every - self.case.removed <= {*self.payments.references()}

        await self.come(there, "made")
        await self.come(lambda: self.client.empty(self.case.queue), "all queues empty")

    async def refused(self, times: int = 3) -> None:
        """Wait until some more moves were refused."""
        goal = self.case.times(REFUSED) + times
        await self.come(lambda: self.case.times(REFUSED) >= goal, "refused")

    async def ended(self, times: int = 1) -> None:
        """Wait until some more subscriptions have ended."""
        goal = self.case.times(ENDED) + times
        await self.come(lambda: self.case.times(ENDED) >= goal, "subscription ended")

    async def delete_lane(self, make_again: dict[str, Any] | None = None) -> None:
        """Delete the parking queue with all that is in it, and account for what that was.

        Messages in flight at the worker are gone with it, unless they were handled. Returns when
        the worker has noticed; or at once, where the queue is made again with arguments.
        """

        def gone() -> set[str]:
            return self.case.moved_last_to(self.lane) | self.case.in_hand

        await self._delete(self.lane, gone, make_again)

    async def delete_source(self) -> None:
        """Delete the source queue with all that is in it, and account for what that was.

        What was delayed may have come back to it already, which nobody sees while it goes on.
        """
        ordered = set(self.case.references)

        def gone() -> set[str]:
            return (ordered - self.case.noted(SETTLED)) | self.case.in_hand | self.delayed

        await self._delete(self.case.queue, gone)

    async def _delete(
        self,
        queue: str,
        gone: Callable[[], set[str]],
        make_again: dict[str, Any] | None = None,
    ) -> None:
        self._fork_server.send(self.case.pid, signal.SIGSTOP)
        try:
            before = self._noticed()
            self.case.removed |= gone()
            await self.client.delete(queue, make_again)
        finally:
            self._fork_server.send(self.case.pid, signal.SIGCONT)
        if make_again is None:
            await self.come(lambda: self._noticed() > before, "deletion noticed")

    def _noticed(self) -> int:
        """Count what shows a worker that a queue is gone, whether or not it is subscribed to it."""
        return self.case.times(ENDED) + self.case.times(REFUSED)

    async def takes_only(self, messages: int) -> None:
        """Let the parking queue refuse what comes while it holds so many messages."""
        limit = f'{{"max-length":{messages}}}'
        await self.ctl("set_policy", "full", f"^{self.lane}$", limit, "--apply-to", "queues")

    async def takes_all(self) -> None:
        """Let the parking queue take whatever comes."""
        await self.ctl("clear_policy", "full")

    async def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl."""
        return await asyncio.to_thread(self.rabbitmq.ctl, *arguments)


async def nothing(_: Outage) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong.

    Attributes:
        name: as it stands in the table.
        strike: has it happen, and ends it.
        before: comes before the worker is started.
        after: comes at the end, whatever has come of it.
        proxied: whether the worker goes through a proxy, which `strike` gets.
        messages: how many there are in the long version.
        failing: whether some of them fail once, and are delayed.
    """

    name: str
    strike: Callable[[Outage], Awaitable[None]] | None = None
    before: Callable[[Outage], Awaitable[None]] = nothing
    after: Callable[[Outage], Awaitable[None]] = nothing
    through_proxy: Callable[[Outage, FaultProxy], Awaitable[None]] | None = None
    messages: int = 2000
    failing: bool = True

    def __str__(self) -> str:
        return self.name


async def go_through(outage: Outage, fault: Fault) -> Account:
    """Go through an outage in which a fault strikes; return what became of the messages."""
    try:
        return await _go_through(outage, fault)
    finally:
        await fault.after(outage)


async def _go_through(outage: Outage, fault: Fault) -> Account:
    client, case, payments = outage.client, outage.case, outage.payments
    payments.kill()
    await client.declare(case.queue)
    await outage.order(outage.more(fault.messages if LONG else 40, failing=fault.failing))
    await fault.before(outage)
    where = urlsplit(outage.rabbitmq.url)
    async with FaultProxy(where.hostname or "", where.port or 5672) as proxy:
        url = outage.rabbitmq.url
        if fault.through_proxy is not None:
            user = f"{where.username}:{where.password}"
            url = f"amqp://{user}@127.0.0.1:{proxy.port}{where.path}?heartbeat=4"

        async def strike() -> None:
            await outage.further()
            if fault.strike is not None:
                await fault.strike(outage)
            if fault.through_proxy is not None:
                await fault.through_proxy(outage, proxy)

        outage.start_worker(url)
        if outage.during == PARKING:
            await strike()
        await outage.all_parked()
        payments.start()
        if outage.during == REPLAYING:
            await strike()
        await outage.all_made()
        await outage.stop_worker()
    return await case.account(client, payments)
