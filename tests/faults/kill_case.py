"""One worker on one queue: what it had to do, what it noted, and the fate of its messages."""

from __future__ import annotations

import signal
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusewire.parking import MessageOutcome
from fusewire.testing.faults import LossLedger, Side
from fusewire.testing.faults._journal import SETTLED, Entry, in_hand, read_journal
from tests.faults.armed_worker import RUNNING
from tests.faults.queue_client import queues

if TYPE_CHECKING:
    from pathlib import Path

    from fusewire.testing.faults import Account, Await
    from tests.faults.queue_client import QueueClient
    from tests.support.payments import PaymentsProcess


class Notes:
    """The entries of a journal, read on as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: list[Entry] = []
        self._operations: defaultdict[str, set[str]] = defaultdict(set)
        self._place = 0

    def read(self) -> list[Entry]:
        """Return all entries so far."""
        for entry, place in read_journal(self.path, self._place):
            self._place = place
            self._entries.append(entry)
            self._operations[entry.what].add(entry.operation_id)
        return self._entries

    def operations(self, what: str) -> set[str]:
        """Return the operations with an entry of this kind."""
        self.read()
        return self._operations[what]


@dataclass(slots=True, kw_only=True)
class KillCase:
    """One kill point, tried on one queue; or another fault.

    Attributes:
        point: the await; None for a worker that does not die.
        side: before or after the await.
        when: armed while ``declaring``, ``parking``, ``replaying`` or ``stopping``; or another
            fault's name.
        hit: the ordinal of the hit at which it dies.
        exchange: the exchange of its moves; the default exchange if empty.
        removed: operations that were in a queue that the test deleted.
        on_the_way_back: operations that were delayed when the test killed RabbitMQ.
        concurrency: messages in flight of each of its worker's queues.
    """

    point: Await | None = None
    side: Side = Side.BEFORE
    when: str = ""
    hit: int = 1
    queue: str = ""
    exchange: str = ""
    references: list[str] = field(default_factory=list)
    journals: list[Notes] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)
    on_the_way_back: set[str] = field(default_factory=set)
    concurrency: int = 4
    pid: int = 0
    status: int | None = None

    @property
    def struck(self) -> bool:
        """Whether the worker reached its await and died there."""
        return self.status == -signal.SIGKILL

    def __str__(self) -> str:
        if self.point is None:
            return self.when
        place = f"{self.point.place} ({self.point.function}), {self.side}, hit {self.hit}"
        return f"{place}, while {self.when}: {'killed' if self.struck else 'not reached'}"

    @property
    def running(self) -> bool:
        """Whether its latest worker has started far enough to end on SIGTERM."""
        return bool(self.journals[-1].operations(RUNNING))

    def noted(self, *whats: str) -> set[str]:
        """Return the operations with one of these entries in its workers' journals."""
        return {o for notes in self.journals for what in whats for o in notes.operations(what)}

    def entries(self, what: str) -> list[Entry]:
        """Return all entries of a kind in its workers' journals."""
        return [entry for notes in self.journals for entry in notes.read() if entry.what == what]

    def times(self, what: str) -> int:
        """Count the entries of a kind in its workers' journals."""
        return len(self.entries(what))

    @property
    def parked(self) -> set[str]:
        """The operations that were parked."""
        return self.noted(MessageOutcome.PARKED)

    def moved_last_to(self, *targets: str) -> set[str]:
        """Return the operations whose last move was to one of these queues."""
        last = {entry.operation_id: entry.detail for entry in self.entries(SETTLED)}
        return {operation for operation, queue in last.items() if queue in targets}

    @property
    def in_hand(self) -> set[str]:
        """The operations that are in flight at its workers."""
        return {o for notes in self.journals for o in in_hand(notes.read())}

    async def account(self, client: QueueClient, payments: PaymentsProcess) -> Account:
        """Sort its messages by what the server and an outside client see of them."""
        ledger = LossLedger()
        effects = payments.references()
        for reference in self.references:
            ledger.published(reference)
            ledger.effect(reference, effects[reference])
        own = set(self.references)
        for key, times in payments.repeated().items():
            if (reference := key.split("/")[0]) in own:
                ledger.repeat(reference, times)
        for reference in self.removed:
            ledger.removed(reference)
        for reference in self.on_the_way_back:
            ledger.ambiguous(reference, "RabbitMQ was killed, and redelivers at least once")
        for notes in self.journals:
            ledger.read(notes.path)
        for queue, place in queues(self.queue).items():
            for reference in await client.ready(queue):
                ledger.found(place, reference)
        return ledger.sort()
