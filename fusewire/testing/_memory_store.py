"""The queues of one name, which all brokers of that name share."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from bisect import insort
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, cast

from fusewire._locks import make_lock
from fusewire.brokers import FoundMessage, Station
from fusewire.errors import MoveRefusedError, QueueNotFoundError
from fusewire.testing._memory_message import to_read, to_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fusewire.brokers import Message, Topology

_POLL = 0.005  # seconds between two looks at a clock that does not say when it is moved


@dataclass(slots=True, eq=False)
class Entry:
    """One stored message.

    Attributes:
        sequence: its place among all messages of the store.
        station: where it is stored.
        message: a copy that nobody else has.
        received: whether somebody had it before.
    """

    sequence: int
    station: Station
    message: Message
    received: bool = False


@dataclass(slots=True, eq=False)
class Receiver:
    """One who receives from a station.

    Attributes:
        station: which one.
        prefetch: how many messages it may have in flight.
        in_flight: those that it has.
        quiet: whether it takes nothing more.
    """

    station: Station
    prefetch: int
    in_flight: set[Entry]
    quiet: bool = False


class Store:
    """Stations, what waits there, and who receives it.

    Each method is one critical section and never waits for anything else. So it takes effect as a
    whole, for tasks that are cancelled and for several threads.
    """

    def __init__(self) -> None:
        self._lock = make_lock()
        self._sequence = itertools.count()
        self._clock: Callable[[], float] = time.monotonic
        # By the texts of stations: brokers reach `orders.dead` by its name, too.
        self._waiting: dict[str, list[Entry]] = {}
        self._delayed: dict[str, list[tuple[float, int, Entry]]] = {}  # heaps, by source
        self._marks: set[tuple[str, str]] = set()
        self._single: set[str] = set()
        self._receivers: dict[str, list[Receiver]] = {}
        self._listeners: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def set_clock(self, clock: Callable[[], float]) -> bool:
        """Use `clock` from now on. Return whether it is used: a store with queues keeps its own."""
        with self._lock:
            if not self._waiting:
                self._clock = clock
            return self._clock is clock

    def clear(self) -> None:
        """Forget everything. What was in flight is lost, and who receives has no station."""
        with self._lock:
            for receivers in self._receivers.values():
                for receiver in receivers:
                    receiver.in_flight.clear()
            for forgotten in (self._receivers, self._waiting, self._delayed):
                forgotten.clear()
            self._marks.clear()
            self._single.clear()
            self._clock = time.monotonic
            self._tell()

    def create(self, queue: str) -> None:
        """Make a source, if there is none."""
        with self._lock:
            self._waiting.setdefault(queue, [])
            self._tell()

    def prepare(self, topology: Topology) -> None:
        """Make the stations of a source that exists."""
        with self._lock:
            self._look(Station(topology.source))
            for station in topology.stations:
                self._waiting.setdefault(str(station), [])
                if topology.single and station.kind == "lane":
                    self._single.add(str(station))
            self._delayed.setdefault(topology.source, [])
            self._tell()

    def put(self, to: Station, message: Message, delay: float) -> None:
        """Store a message at the tail of a station, or at that of its source after a delay."""
        with self._lock:
            self._put(to, message, delay)
            self._tell()

    def move(
        self, receiver: Receiver, entry: Entry, to: Station, message: Message, delay: float
    ) -> bool:
        """Store `message`, and remove `entry`. Return whether it was in flight; else do nothing."""
        with self._lock:
            if entry not in receiver.in_flight:
                return False
            self._put(to, message, delay)
            receiver.in_flight.remove(entry)
            self._tell()
            return True

    def remove(self, receiver: Receiver, entry: Entry) -> bool:
        """Remove `entry` for good. Return whether it was in flight; else do nothing."""
        with self._lock:
            if entry not in receiver.in_flight:
                return False
            receiver.in_flight.remove(entry)
            self._tell()
            return True

    def receive(self, station: Station, prefetch: int) -> Receiver:
        """Add one who receives from `station`."""
        with self._lock:
            self._look(station)
            receiver = Receiver(station, prefetch, set())
            self._receivers.setdefault(str(station), []).append(receiver)
            return receiver

    def take(self, receiver: Receiver) -> Entry | None:
        """Give the next message to `receiver`, if there is one for it."""
        with self._lock:
            waiting = self._look(receiver.station)
            receivers = self._receivers.get(str(receiver.station), [])
            if receiver not in receivers:  # everything was forgotten, and made again
                raise _missing(receiver.station)
            has_room = len(receiver.in_flight) < receiver.prefetch
            if receiver.quiet or not has_room or not waiting:
                return None
            if str(receiver.station) in self._single:
                active = next(each for each in receivers if not each.quiet)
                if active is not receiver:
                    return None
            entry = waiting.pop(0)
            receiver.in_flight.add(entry)
            return entry

    def quiesce(self, receiver: Receiver) -> None:
        """Give `receiver` nothing more; another may be the active one of its station."""
        with self._lock:
            receiver.quiet = True
            self._tell()

    def leave(self, receiver: Receiver) -> None:
        """Give back what `receiver` has in flight, in its old order, and forget `receiver`."""
        with self._lock:
            if receiver not in (receivers := self._receivers.get(str(receiver.station), [])):
                return
            receivers.remove(receiver)
            for entry in receiver.in_flight:
                entry.received = True
                insort(self._waiting[str(entry.station)], entry, key=attrgetter("sequence"))
            receiver.in_flight.clear()
            self._tell()

    def depth(self, station: Station) -> int:
        """Count what waits."""
        with self._lock:
            return len(self._look(station))

    def receivers(self, station: Station) -> int:
        """Count who receives."""
        with self._lock:
            self._look(station)
            return len(self._receivers.get(str(station), []))

    def count(self, station: Station) -> int:
        """Count what waits or is in flight."""
        with self._lock:
            receivers = self._receivers.get(str(station), [])
            in_flight = sum(len(receiver.in_flight) for receiver in receivers)
            return len(self._look(station)) + in_flight

    def peek(self, station: Station, limit: int) -> list[Message]:
        """Copy what waits, oldest first."""
        with self._lock:
            return [to_read(entry.message) for entry in self._look(station)[: max(limit, 0)]]

    def find(self, topology: Topology, message_id: str) -> list[FoundMessage]:
        """Copy the messages of an id, oldest first."""
        with self._lock:
            self._look(Station(topology.source))
            held = {
                entry
                for station in topology.stations
                for receiver in self._receivers.get(str(station), [])
                for entry in receiver.in_flight
            }
            idle = {
                entry: station
                for station in (*topology.stations, topology.delayed)
                for entry in self._idle(station)
            }
            found = [entry for entry in (*held, *idle) if entry.message.message_id == message_id]
            return [
                FoundMessage(
                    station=idle.get(entry, entry.station),
                    message=to_read(entry.message),
                    in_flight=entry in held,
                    redelivered=entry.received,
                    place=(entry, entry.received),
                )
                for entry in sorted(found, key=attrgetter("sequence"))
            ]

    def withdraw(
        self, found: Sequence[FoundMessage], instead: tuple[Station | str, Message] | None
    ) -> bool:
        """Remove what was found, if all of it is as it was, and store one message instead."""
        with self._lock:
            for each in found:
                entry, received = cast("tuple[Entry, bool]", each.place)
                if entry not in self._idle(each.station) or entry.received is not received:
                    return False
            if instead is not None:
                self._put(Station.of(instead[0]), instead[1], 0.0)
            gone = {cast("tuple[Entry, bool]", each.place)[0] for each in found}
            for entries in self._waiting.values():
                entries[:] = [entry for entry in entries if entry not in gone]
            for delayed in self._delayed.values():
                delayed[:] = [item for item in delayed if item[2] not in gone]
                heapq.heapify(delayed)
            self._tell()
            return True

    def _idle(self, station: Station) -> list[Entry]:
        """Return what nobody has at a station; nothing if there is none."""
        try:
            return self._look(station)
        except QueueNotFoundError:
            return []

    def mark(self, queue: str, mark: str) -> None:
        """Note a mark."""
        with self._lock:
            self._marks.add((queue, mark))

    def unmark(self, queue: str, mark: str) -> None:
        """Forget a mark."""
        with self._lock:
            self._marks.discard((queue, mark))

    def is_marked(self, queue: str, mark: str) -> bool:
        """Return whether a mark is noted."""
        with self._lock:
            return (queue, mark) in self._marks

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Yield an event that the next change sets, on the event loop that runs."""
        event = asyncio.Event()
        with self._lock:
            self._listeners[event] = asyncio.get_running_loop()
        try:
            yield event
        finally:
            with self._lock:
                self._listeners.pop(event, None)

    async def changed(self, event: asyncio.Event, queue: str) -> None:
        """Wait until `event` is set, or a delay on the way to `queue` may be over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._until_due(queue)):
                await event.wait()

    def _until_due(self, queue: str) -> float | None:
        with self._lock:
            if not (delayed := self._delayed.get(queue)):
                return None
            seconds = delayed[0][0] - self._clock()
            return seconds if self._clock is time.monotonic else _POLL

    def _look(self, station: Station) -> list[Entry]:
        """Return what waits at a station, oldest first, when all is there that is due."""
        delayed = self._delayed.get(station.queue)
        while delayed and delayed[0][0] <= self._clock():
            _, _, entry = heapq.heappop(delayed)
            entry.sequence = next(self._sequence)  # the tail, as of now
            self._waiting[str(entry.station)].append(entry)
        if station.kind == "delayed" and delayed is not None:
            return sorted((entry for _, _, entry in delayed), key=attrgetter("sequence"))
        if (waiting := self._waiting.get(str(station))) is None:
            raise _missing(station)
        return waiting

    def _put(self, to: Station, message: Message, delay: float) -> None:
        if delay > 0 and to.kind != "source":
            raise ValueError(f"only a source takes a delay, and {to} is none")
        if to.kind == "delayed":
            raise MoveRefusedError(f"{to} takes no message: publish to {to.queue} with a delay")
        try:
            waiting = self._look(to)
        except QueueNotFoundError as error:
            raise MoveRefusedError(f"nothing was stored: {error}") from None
        entry = Entry(next(self._sequence), to, to_store(message))
        if delay <= 0:
            waiting.append(entry)
        elif to.queue in self._delayed:
            due = self._clock() + delay
            heapq.heappush(self._delayed[to.queue], (due, entry.sequence, entry))
        else:
            raise MoveRefusedError(
                f"nothing was stored: {to} takes no delay until prepare() has made its stations"
            )

    def _tell(self) -> None:
        """Wake all who listen, each on its own event loop."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:  # clear() is called outside of one
            running = None
        for event, loop in self._listeners.items():
            if loop is running:
                event.set()
            else:
                with contextlib.suppress(RuntimeError):  # it is closed, and nobody waits there
                    loop.call_soon_threadsafe(event.set)
        self._listeners.clear()


def _missing(station: Station) -> QueueNotFoundError:
    how = "create_queue() makes it" if station.kind == "source" else "prepare() makes it"
    return QueueNotFoundError(f"there is no {station} in this broker; {how}")
