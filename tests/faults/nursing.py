"""The tests' side of the nursery: workers by the dozen, each on a queue of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import aio_pika

from fusewire.brokers import Topology
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.testing.faults import LossLedger, Place, Side
from tests.faults.armed_worker import DELAY_TIERS, LANE
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aio_pika.abc import AbstractChannel, AbstractConnection, HeadersType

    from fusewire.testing.faults import Account, Await
    from tests.support.payments import PaymentsProcess

ROOT = Path(__file__).parents[2]


@dataclass(slots=True, kw_only=True)
class Trial:
    """One kill point, tried on one queue.

    Attributes:
        point: the await; None for a worker that is not to die.
        side: before or after it.
        when: armed while ``parking``, ``replaying`` or ``stopping``; or another fault's name.
        hit: at the how-manieth hit.
        unacknowledged: operations whose acknowledgement the test itself may have spoiled.
    """

    point: Await | None = None
    side: Side = Side.BEFORE
    when: str = ""
    hit: int = 1
    queue: str = ""
    references: list[str] = field(default_factory=list)
    journals: list[Path] = field(default_factory=list)
    unacknowledged: set[str] = field(default_factory=set)
    pid: int = 0
    status: int | None = None

    @property
    def struck(self) -> bool:
        """Whether the worker met its await, and died of it."""
        return self.status == -signal.SIGKILL

    def __str__(self) -> str:
        if self.point is None:
            return self.when
        place = f"{self.point.place} ({self.point.function}), {self.side}, hit {self.hit}"
        return f"{place}, while {self.when}: {'killed' if self.struck else 'not reached'}"

    def noted(self) -> Iterator[tuple[str, str]]:
        """Read its workers' journals: what, and the operation id."""
        for journal in self.journals:
            if journal.exists():
                for line in journal.read_text().splitlines():
                    what, operation_id = line.split(" ", 1)
                    yield what, operation_id

    @property
    def running(self) -> bool:
        """Whether its latest worker has come so far that it ends by itself on SIGTERM."""
        return "running None\n" in self.journals[-1].read_text()

    def happened(self, happening: str) -> set[str]:
        """Return the operations that an event of the consumer was told of."""
        return {operation for what, operation in self.noted() if what == f"event-{happening}"}

    @property
    def doubted(self) -> set[str]:
        """The operations of which a call, a move or an acknowledgement ended in doubt."""
        return {operation for what, operation in self.noted() if what == "doubt"}

    async def account(self, field: Field, payments: PaymentsProcess) -> Account:
        """Sort what became of its messages, as the server and a client outside see it."""
        ledger = LossLedger()
        effects = payments.references()
        for reference in self.references:
            ledger.published(reference)
            ledger.effect(reference, effects[reference])
        own = set(self.references)
        for key, times in payments.repeated().items():
            if (reference := key.split("/")[0]) in own:
                ledger.repeat(reference, times)
        self._explain(ledger)
        for queue, place in queues(self.queue).items():
            for reference in await field.ready(queue):
                ledger.found(place, reference)
        return ledger.sort()

    def _explain(self, ledger: LossLedger) -> None:
        """Tell the ledger which operations were in hand at the kill, or ended in doubt."""
        for operation_id in self.unacknowledged:
            ledger.ambiguous(operation_id, "its acknowledgement may not have come to the broker")
        for journal in self.journals:
            in_hand: set[str] = set()
            for line in journal.read_text().splitlines() if journal.exists() else ():
                what, operation_id = line.split(" ", 1)
                if what == "take":
                    in_hand.add(operation_id)
                elif what == "settled":
                    in_hand.discard(operation_id)
                elif what == "doubt":
                    ledger.ambiguous(operation_id, "a call, a move or an acknowledgement failed")
            for operation_id in in_hand:
                ledger.ambiguous(operation_id, "the worker was killed with it in hand")


def queues(source: str) -> dict[str, Place]:
    topology = Topology(source, (LANE,), DELAY_TIERS)
    return {
        source: Place.SOURCE,
        **{topology.parked(lane): Place.PARKED for lane in topology.lanes},
        **{topology.delay(tier): Place.DELAYED for tier in DELAY_TIERS},
        topology.dead: Place.DEAD,
    }


class Field:
    """What a client outside does with the queues and sees in them; it knows nothing of Fusewire."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        self._connection = connection
        self._channel = channel

    async def declare(self, queue: str) -> None:
        await self._channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})

    async def order(self, queue: str, reference: str, headers: HeadersType) -> None:
        """Publish an order, and return when it is confirmed."""
        body = ChargeRequest(
            account="shop", amount_cents=100, currency="EUR", reference=reference
        ).SerializeToString()
        message = aio_pika.Message(
            body,
            headers=headers,
            message_id=reference,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._channel.default_exchange.publish(message, queue)

    async def ready(self, queue: str) -> list[str]:
        """Return the references of the messages that are ready, and leave them there."""
        async with self._connection.channel() as channel:
            declared = await channel.declare_queue(queue, passive=True)
            found = []
            while (message := await declared.get(fail=False)) is not None:
                found.append(ChargeRequest.FromString(message.body).reference)
        return found

    async def count(self, queue: str) -> int:
        """Count the messages that are ready."""
        declared = await self._channel.declare_queue(queue, passive=True)
        return int(declared.declaration_result.message_count or 0)

    async def empty(self, source: str) -> bool:
        """Tell whether nothing is ready in a source queue and those of it, but for the dead."""
        passing = [queue for queue, place in queues(source).items() if place is not Place.DEAD]
        return not any([await self.count(queue) for queue in passing])

    async def purge(self, queue: str) -> None:
        """Delete the messages that are ready."""
        declared = await self._channel.declare_queue(queue, passive=True)
        await declared.purge()


class Nursery:
    """The process that forks workers, and the line to it."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder = folder
        self._line = socket.socket(socket.AF_UNIX)
        path = folder / "nursery"
        self._line.bind(str(path))
        self._line.listen()
        self._line.settimeout(60)
        self._process = KeptProcess(
            [sys.executable, "-m", "tests.faults.nursery", str(path)], cwd=ROOT, log=log
        )
        connection, _ = self._line.accept()
        with connection:
            self._talk: IO[str] = connection.makefile("rw", encoding="utf-8")
        self._ended: dict[int, int] = {}

    def start(
        self, trial: Trial, *, url: str, target: str, armed: bool = False, timeout: float = 10.0
    ) -> int:
        """Start a worker for a trial; return its process id.

        Args:
            trial: its queue and its kill point.
            url: where RabbitMQ is.
            target: where the payments server is.
            armed: whether it dies at the kill point.
            timeout: seconds that it gives RabbitMQ for one operation.
        """
        journal = self._folder / f"{trial.queue}-{len(trial.journals)}-{trial.references[0]}"
        trial.journals.append(journal)
        order = {
            "url": url,
            "queue": trial.queue,
            "target": target,
            "folder": str(self._folder),
            "journal": str(journal),
            "timeout": timeout,
            "await": trial.point.place if armed and trial.point else "",
            "side": trial.side,
            "when": trial.when,
            "hit": trial.hit,
        }
        pid: int = self._ask(order)
        return pid

    def status(self, pid: int) -> int | None:
        """Return the exit status of a worker; None while it runs."""
        if pid not in self._ended:
            for gone, status in self._ask(None).items():
                self._ended[int(gone)] = status
        return self._ended.get(pid)

    def send(self, pid: int, signum: int) -> None:
        """Send a signal to a worker; to one that has ended, nothing."""
        with contextlib.suppress(ProcessLookupError):
            if self.status(pid) is None:
                os.kill(pid, signum)

    def close(self) -> None:
        """End it and all its workers."""
        self._process.kill()
        self._talk.close()
        self._line.close()

    def _ask(self, request: object) -> Any:
        self._talk.write(f"{json.dumps(request)}\n")
        self._talk.flush()
        return json.loads(self._talk.readline())
