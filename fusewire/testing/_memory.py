"""A broker that lives in the memory of one process, for tests."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import TYPE_CHECKING, Self

from fusewire._locks import make_lock
from fusewire._validation import COUNT, check, check_text
from fusewire.brokers import Capabilities, Station
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
    QueueNotFoundError,
    SettingsError,
)
from fusewire.testing._memory_message import to_read
from fusewire.testing._memory_store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from fusewire.brokers import FoundMessage, Message, Topology
    from fusewire.testing._memory_store import Entry, Receiver

_ADDRESS = re.compile(r"memory://([\w.-]+)", re.IGNORECASE | re.ASCII)

_stores: dict[str, Store] = {}
_lock = make_lock()


class InMemoryBroker:
    """A broker for tests. It needs no server and no file, and ends with the process.

    All brokers of one address share their queues, as processes share a server. An address keeps
    its queues when its brokers are left, until :meth:`clear`.

    ::

        async def test_an_order_is_handled() -> None:
            async with InMemoryBroker() as broker:
                await broker.create_queue("orders")
                async with ParkingConsumer(
                    broker, queue="orders", handler=handle, depends_on="payments"
                ) as consumer:
                    running = asyncio.create_task(consumer.run(handle_signals=False))
                    await broker.publish("orders", Message(body=b"order 7"))
                    ...

    Code that takes an address gets :attr:`address`.

    Use a broker on the event loop where it was entered. Brokers of one address may be entered on
    several loops, each in its own thread. A method takes effect as a whole or, if it is cancelled
    before it begins, not at all.

    Args:
        address: ``memory://`` and a name of ASCII letters, digits, ``.``, ``_`` and ``-``. Without
            it the broker gets an address that no other has.
        clock: monotonic seconds, for delays; by default the process's own. All brokers of an
            address have one clock, which the first of them sets before there are queues. Of another
            clock the broker does not hear when it is moved: it looks every few milliseconds.

    Raises:
        SettingsError: the address cannot be right, or its queues have another clock.
    """

    def __init__(
        self, address: str | None = None, *, clock: Callable[[], float] | None = None
    ) -> None:
        if address is None:
            address = f"memory://{secrets.token_hex(8)}"
        elif not (named := _ADDRESS.fullmatch(address)):
            raise SettingsError(
                "the address of a broker in memory must be memory:// and a name of letters, "
                "digits, '.', '_' and '-'"  # not the address, which may hold a password
            )
        else:
            address = f"memory://{named[1]}"
        with _lock:
            self._store = _stores.setdefault(address, Store())
        if clock is not None and not self._store.set_clock(clock):
            raise SettingsError(
                f"clock must be the one that {address} has already; give it to the first broker "
                "of an address, or clear() the broker before"
            )
        self._address = address
        self._entered = False
        self._subscriptions: set[_Subscription] = set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address!r})"

    @property
    def address(self) -> str:
        """What :func:`~fusewire.brokers.open_broker` takes for a broker on the same queues."""
        return self._address

    @property
    def capabilities(self) -> Capabilities:
        """Everything but durability."""
        return Capabilities(durable=False, searchable=True, system="memory")

    async def __aenter__(self) -> Self:
        """Begin.

        Raises:
            BrokerError: it is entered already.
        """
        if self._entered:
            raise BrokerError(f"{self!r} is entered already; open another one of its address")
        self._entered = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back what is in flight, and end the subscriptions."""
        self._entered = False
        for subscription in tuple(self._subscriptions):
            subscription.end()

    def clear(self) -> None:
        """Forget all queues, messages, marks and the clock of this address, at once.

        Consumers that still run are told that their queues are gone.
        """
        self._store.clear()

    async def until_holds(
        self, station: Station | str, count: int, *, within: float = 10.0
    ) -> None:
        """Wait until `station` holds `count` messages, which wait or are in flight.

        Args:
            station: which one; it need not exist yet.
            count: how many; with 0, all that was received from it is settled, too.
            within: seconds after which the wait is given up.

        Raises:
            TimeoutError: it did not come to that; the message says how many it holds.
        """
        place = Station.of(station)
        found = ""
        try:
            async with asyncio.timeout(within):
                while True:
                    with self._store.listening() as event:
                        store = await self._use()
                        try:
                            held = store.count(place)
                        except QueueNotFoundError:
                            found = "there is no such station"
                        else:
                            found = f"it holds {held}"
                            if held == count:
                                return
                        await store.changed(event, place.queue)
        except TimeoutError:
            raise TimeoutError(
                f"{place} did not hold {count} messages within {within:g} s: {found}"
            ) from None

    async def create_queue(self, queue: str) -> None:
        """Make a source queue, if it does not exist yet."""
        check_text("queue", queue)
        store = await self._use()
        store.create(queue)

    async def prepare(self, topology: Topology) -> None:
        """Check that the source queue exists, and make its other stations that do not.

        Raises:
            QueueNotFoundError: the source queue does not exist.
        """
        store = await self._use()
        store.prepare(topology)

    async def subscribe(self, station: Station | str, *, prefetch: int) -> _Subscription:
        """Begin to receive from `station`, with at most `prefetch` messages in flight.

        Raises:
            QueueNotFoundError: there is no such station.
            ValueError: `prefetch` is below 1, or what is delayed cannot be received.
        """
        check("prefetch", prefetch, COUNT)
        place = Station.of(station)
        if place.kind == "delayed":
            raise ValueError(f"nobody receives from {place}: it can only be looked at")
        store = await self._use()
        subscription = _Subscription(store, store.receive(place, prefetch), self._subscriptions)
        self._subscriptions.add(subscription)
        return subscription

    async def publish(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        """Store a copy of `message` in the station `to`.

        Raises:
            MoveRefusedError: `to` does not exist, or something in `message` cannot be stored.
            TypeError: something in `message` is of a type that no broker stores.
            ValueError: there is a delay, and `to` is not a source.
        """
        store = await self._use()
        store.put(Station.of(to), message, delay)

    async def depth(self, station: Station | str) -> int:
        """Count the messages that wait in `station`, without those in flight or delayed.

        Raises:
            QueueNotFoundError: there is no such station.
        """
        store = await self._use()
        return store.depth(Station.of(station))

    async def receivers(self, station: Station | str) -> int:
        """Count the subscriptions to `station` of all brokers of this address.

        Raises:
            QueueNotFoundError: there is no such station.
        """
        store = await self._use()
        return store.receivers(Station.of(station))

    async def peek(self, station: Station | str, *, limit: int) -> list[Message]:
        """Read up to `limit` waiting messages, oldest first, and leave them where they are.

        Raises:
            QueueNotFoundError: there is no such station.
        """
        store = await self._use()
        return store.peek(Station.of(station), limit)

    async def find(self, topology: Topology, message_id: str) -> list[FoundMessage]:
        """Return the messages of an id: those that wait, are delayed, or in flight.

        Raises:
            QueueNotFoundError: the source queue does not exist.
        """
        store = await self._use()
        return store.find(topology, message_id)

    async def withdraw(
        self, found: Sequence[FoundMessage], instead: tuple[Station | str, Message] | None = None
    ) -> bool:
        """Remove messages that wait or are delayed, and store one instead.

        Returns:
            whether they are removed; else they were received or moved, and nothing was changed.

        Raises:
            MoveRefusedError: `instead` cannot be stored there; nothing was changed.
        """
        store = await self._use()
        return store.withdraw(found, instead)

    async def mark(self, queue: str, mark: str) -> None:
        """Note `mark` beside a source queue."""
        store = await self._use()
        store.mark(queue, mark)

    async def unmark(self, queue: str, mark: str) -> None:
        """Forget a mark, if it is noted."""
        store = await self._use()
        store.unmark(queue, mark)

    async def is_marked(self, queue: str, mark: str) -> bool:
        """Return whether a mark is noted."""
        store = await self._use()
        return store.is_marked(queue, mark)

    async def _use(self) -> Store:
        """Let others run, as a broker with a server does; what follows is not interrupted."""
        await asyncio.sleep(0)
        if not self._entered:
            raise BrokerError(f"{self!r} is not entered; use it inside `async with`")
        return self._store


class _Subscription:
    """Takes a message only when somebody receives it, so there is nothing to wait for it."""

    def __init__(self, store: Store, receiver: Receiver, others: set[_Subscription]) -> None:
        self._store = store
        self._receiver = receiver
        self._others = others
        self._ended = False

    async def receive(self) -> _Delivery:
        await asyncio.sleep(0)  # let others run, even if there is always a message
        while True:
            with self._store.listening() as event:
                if self._ended:
                    station = self._receiver.station
                    raise BrokerUnavailableError(f"the subscription of {station} was released")
                if (entry := self._store.take(self._receiver)) is not None:
                    return _Delivery(self._store, self._receiver, entry)
                await self._store.changed(event, self._receiver.station.queue)

    async def quiesce(self) -> Sequence[_Delivery]:
        self._store.quiesce(self._receiver)
        return ()

    async def release(self) -> None:
        self.end()

    def end(self) -> None:
        """Give back what is in flight, without a point to be cancelled at."""
        self._ended = True
        self._others.discard(self)
        self._store.leave(self._receiver)


class _Delivery:
    """A message in flight."""

    counts_returns = True
    returned = 0  # messages end with the process, so none has seen a process die

    def __init__(self, store: Store, receiver: Receiver, entry: Entry) -> None:
        self.message = to_read(entry.message)
        self.redelivered = entry.received
        self._store = store
        self._receiver = receiver
        self._entry = entry
        self._settled = False

    @property
    def lost(self) -> bool:
        return not self._settled and self._entry not in self._receiver.in_flight

    async def done(self) -> None:
        await asyncio.sleep(0)
        self._settle(removed=self._store.remove(self._receiver, self._entry))

    async def move(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        await asyncio.sleep(0)
        place = Station.of(to)
        moved = self._store.move(self._receiver, self._entry, place, message, delay)
        self._settle(removed=moved)

    def _settle(self, *, removed: bool) -> None:
        if not removed:
            why = "is settled already" if self._settled else "was given back"
            raise DeliveryLostError(f"the delivery from {self._entry.station} {why}")
        self._settled = True
