"""A worker's journal: what it receives and settles, on disk before it takes the next step.

A killed worker reports nothing, and one whose connection breaks does not know what arrived. Its
journal is enough to find out which operations may have been done twice.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from fusewire.errors import BrokerError, BrokerUnavailableError, MoveRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from fusewire.brokers import (
        Broker,
        Capabilities,
        Delivery,
        Message,
        Station,
        Subscription,
        Topology,
    )

SUBSCRIBED, RECEIVED, ENDED = "subscribed", "received", "ended"
BEGAN, REFUSED, DOUBT, SETTLED = "began", "refused", "doubt", "settled"

_OPERATION_ID = "fusewire-operation-id"

_UNSEEN = 2
"""Of a subscription, the broker may have missed so many times its prefetch of acknowledgements.

It never has more than the prefetch unacknowledged, so each delivery beyond that proves that one
acknowledgement came. Twice, because they may be sent in another order than they are noted in.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a journal.

    Attributes:
        what: ``subscribed``, ``received``, ``began``, ``settled``, ``refused``, ``doubt``,
            ``ended``, or what a worker notes for itself.
        operation_id: which unit of work; empty where it is about none.
        subscription: which subscription of this worker, from 1; 0 where it is about none.
        detail: the prefetch and the queue of what is ``subscribed``, the target of what is
            ``settled`` by a move, the reason of a ``doubt``.
        redelivered: whether what is ``received`` had been delivered before.
    """

    what: str
    operation_id: str = ""
    subscription: int = 0
    detail: str = ""
    redelivered: bool = False


class Journal:
    """Writes a journal. Every worker process has its own.

    An operation is identified by the header ``fusewire-operation-id``, or else by ``message_id``.

    Args:
        path: the file, which must not exist yet.

    Raises:
        FileExistsError: it does.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._subscriptions = itertools.count(1)

    def note(self, entry: Entry) -> None:
        """Write an entry. From then on it outlives the process."""
        fields = (
            entry.what,
            entry.operation_id,
            entry.subscription,
            entry.detail,
            entry.redelivered,
        )
        os.write(self._file, f"{json.dumps(fields)}\n".encode())

    def began(self, operation_id: str) -> None:
        """Note that the handler begins with an operation. Call this first in the handler."""
        self.note(Entry(BEGAN, operation_id))

    def doubt(self, operation_id: str, why: str) -> None:
        """Note that a call of the handler may have taken effect, for example after a timeout."""
        self.note(Entry(DOUBT, operation_id, detail=why))

    def watch(self, broker: Broker) -> Broker:
        """Return a broker that does what `broker` does, and notes it in the journal."""
        return _WatchedBroker(broker, self)

    def subscription(self) -> int:
        """Return the number of a new subscription."""
        return next(self._subscriptions)


def read_journal(path: Path, begin: int = 0) -> Iterator[tuple[Entry, int]]:
    """Read the complete entries of a journal, from a position on.

    Args:
        path: the file. One that does not exist has no entries.
        begin: the place: 0, or what was given with the last entry that is known.

    Yields:
        each entry, and the place behind it.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(begin)
        for line in file:
            if not line.endswith(b"\n"):
                return
            begin += len(line)
            yield Entry(*json.loads(line)), begin


def doubts(entries: Iterable[Entry]) -> dict[str, str]:
    """Return the operations that may have been done twice, and why, by one worker's journal.

    - One that was begun and not settled: the worker was killed, or got it again.
    - One of which a move ended unconfirmed, or whose acknowledgement failed, or which the worker
      itself has doubts about.
    - One that was acknowledged, as the last of its subscription: the broker may not have seen it.
    """
    found: dict[str, str] = {}
    begun: set[str] = set()
    received: Counter[int] = Counter()
    prefetch: dict[int, int] = {}
    settled: defaultdict[int, list[str]] = defaultdict(list)
    for entry in entries:
        match entry.what:
            case "subscribed":
                prefetch[entry.subscription] = int(entry.detail.split(" ")[0])
            case "received":
                received[entry.subscription] += 1
                # Not messages that arrive while it is in flight: those may be unexplained copies.
                if entry.redelivered and entry.operation_id in begun:
                    found[entry.operation_id] = "it was begun, and came again"
            case "began":
                begun.add(entry.operation_id)
            case "doubt":
                found[entry.operation_id] = entry.detail
            case "settled":
                begun.discard(entry.operation_id)
                settled[entry.subscription].append(entry.operation_id)
    found |= dict.fromkeys(begun, "it was begun and not settled")
    for subscription, operations in settled.items():
        seen = max(received[subscription] - _UNSEEN * prefetch[subscription], 0)
        found |= dict.fromkeys(operations[seen:], "its acknowledgement may not have come through")
    return found


def in_hand(entries: Iterable[Entry]) -> set[str]:
    """Return the operations that a worker has received, and neither settled nor requeued."""
    held: defaultdict[int, set[str]] = defaultdict(set)
    for entry in entries:
        match entry.what:
            case "received":
                held[entry.subscription].add(entry.operation_id)
            case "settled":
                held[entry.subscription].discard(entry.operation_id)
            case "ended":
                held.pop(entry.subscription, None)
    return set().union(*held.values())


def identity(message: Message) -> str:
    """Return the identity of a message's operation; empty if it has none."""
    given = message.headers.get(_OPERATION_ID)
    return given if isinstance(given, str) else message.message_id or ""


class _WatchedDelivery:
    def __init__(self, delivery: Delivery, journal: Journal, subscription: int) -> None:
        self._delivery = delivery
        self._journal = journal
        self._subscription = subscription
        self._operation_id = identity(delivery.message)

    @property
    def message(self) -> Message:
        return self._delivery.message

    @property
    def redelivered(self) -> bool:
        return self._delivery.redelivered

    @property
    def returned(self) -> int:
        return self._delivery.returned

    @property
    def counts_returns(self) -> bool:
        return self._delivery.counts_returns

    @property
    def lost(self) -> bool:
        return self._delivery.lost

    async def done(self) -> None:
        self._note(BEGAN)
        try:
            await self._delivery.done()
        except BrokerError as error:
            self._note(DOUBT, f"it could not be acknowledged: {error}")
            raise
        self._note(SETTLED)

    async def move(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        self._note(BEGAN)
        try:
            await self._delivery.move(to, message, delay=delay)
        except (MoveRefusedError, BrokerUnavailableError) as error:  # by their promise: not stored
            self._note(REFUSED, str(error))
            raise
        except BrokerError as error:
            self._note(DOUBT, f"a move ended in doubt: {error}")
            raise
        self._note(SETTLED, str(_reached(to, delay)))

    def _note(self, what: str, detail: str = "") -> None:
        self._journal.note(Entry(what, self._operation_id, self._subscription, detail))


class _WatchedSubscription:
    def __init__(self, subscription: Subscription, journal: Journal, number: int) -> None:
        self._subscription = subscription
        self._journal = journal
        self._number = number

    async def receive(self) -> Delivery:
        try:
            delivery = await self._subscription.receive()
        except BrokerError as error:
            self._journal.note(Entry(ENDED, "", self._number, str(error)))
            raise
        return self._received(delivery)

    async def quiesce(self) -> Sequence[Delivery]:
        return [self._received(delivery) for delivery in await self._subscription.quiesce()]

    async def release(self) -> None:
        await self._subscription.release()
        self._journal.note(Entry(ENDED, "", self._number, "given back"))

    def _received(self, delivery: Delivery) -> Delivery:
        operation_id = identity(delivery.message)
        self._journal.note(Entry(RECEIVED, operation_id, self._number, "", delivery.redelivered))
        return _WatchedDelivery(delivery, self._journal, self._number)


class _WatchedBroker:
    def __init__(self, broker: Broker, journal: Journal) -> None:
        self._broker = broker
        self._journal = journal

    @property
    def capabilities(self) -> Capabilities:
        return self._broker.capabilities

    async def __aenter__(self) -> Self:
        await self._broker.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._broker.__aexit__(exc_type, exc, traceback)

    async def prepare(self, topology: Topology) -> None:
        await self._broker.prepare(topology)

    async def create_queue(self, queue: str) -> None:
        await self._broker.create_queue(queue)

    async def subscribe(self, station: Station | str, *, prefetch: int) -> Subscription:
        subscription = await self._broker.subscribe(station, prefetch=prefetch)
        number = self._journal.subscription()
        self._journal.note(Entry(SUBSCRIBED, "", number, f"{prefetch} {station}"))
        return _WatchedSubscription(subscription, self._journal, number)

    async def publish(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        await self._broker.publish(to, message, delay=delay)

    async def depth(self, station: Station | str) -> int:
        return await self._broker.depth(station)

    @property
    def receivers(self) -> Callable[[Station | str], Coroutine[Any, Any, int]]:
        return self._broker.receivers  # absent if the broker was written before it

    async def peek(self, station: Station | str, *, limit: int) -> list[Message]:
        return await self._broker.peek(station, limit=limit)

    async def mark(self, queue: str, mark: str) -> None:
        await self._broker.mark(queue, mark)

    async def unmark(self, queue: str, mark: str) -> None:
        await self._broker.unmark(queue, mark)

    async def is_marked(self, queue: str, mark: str) -> bool:
        return await self._broker.is_marked(queue, mark)


def _reached(to: Station | str, delay: float) -> Station | str:
    # Imported here: `watch()` has to come before the modules of the brokers.
    from fusewire.brokers import Station  # noqa: PLC0415 - see above

    return Station(Station.of(to).queue, "delayed") if delay else to
