"""The broker's operations as SQL. Each method is run by the worker, inside its transaction.

When a receiver's lease has ended, the process that comes next takes the messages back and deletes
the receiver. Ids of receivers are never used twice, so a delivery that was lost cannot be settled
afterwards, not even by the receiver that had it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fusewire.brokers._names import queue_name
from fusewire.brokers.sqlite import _codec as codec
from fusewire.brokers.sqlite import _liveness as liveness
from fusewire.brokers.sqlite._receivers import Receiver, Receivers
from fusewire.brokers.sqlite._search import Search
from fusewire.brokers.topology import Station, check_delay
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
    MoveRefusedError,
    QueueNotFoundError,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Sequence

    from fusewire.brokers.message import Message
    from fusewire.brokers.topology import Topology

Queue: TypeAlias = "tuple[str, int | None, str | None, int]"
"""A queue's name, delay in milliseconds, the queue that it returns to, and whether it is single."""

_WAITING = "queue = ? AND receiver IS NULL"
# In whichever queue: an older release has one for each delay.
_DELAYED = "queue IN (SELECT id FROM queues WHERE returns_to = ?) AND receiver IS NULL"

_STEP = 1.0  # seconds by which two clocks must differ before one is taken to have been set

# As in `receivers`: a clock that nobody sets decides where it can be read, else the time of day.
_DUE = (
    "receiver IS NULL AND"
    " (clock = :clock AND steady_due <= :steady OR due <= :wall AND clock IS NOT :clock)"
)
_IS_DUE = f"SELECT 1 FROM messages WHERE {_DUE} LIMIT 1"  # noqa: S608 (fixed text, as below)
# New rows, because a message that returns goes to the tail of its queue.
_RETURN_DUE = (
    "INSERT INTO messages (queue, properties, body)"  # noqa: S608
    " SELECT coalesce(returns_to, messages.queue), properties, body"
    " FROM messages JOIN queues ON queues.id = messages.queue"
    f" WHERE {_DUE}"
    " ORDER BY iif(clock = :clock, steady_due - :steady, due - :wall), messages.id"
)
_DELETE_DUE = f"DELETE FROM messages WHERE {_DUE}"  # noqa: S608
# The pluses have SQLite look by `due`: only after the clock was set are there any.
_EARLY = "due <= :wall - :step AND +clock = :clock AND +steady_due > :steady"
_IS_EARLY = f"SELECT 1 FROM messages WHERE {_EARLY} LIMIT 1"  # noqa: S608
_CORRECT_EARLY = f"UPDATE messages SET due = :wall + steady_due - :steady WHERE {_EARLY}"  # noqa: S608


class Claimed(NamedTuple):
    """A message that a receiver holds."""

    id: int
    message: Message
    redelivered: bool
    deaths: int


class Store:
    """Queues, messages and receivers in one database. Used by one thread.

    Args:
        connection: the open database.
        path: its file, for errors.
        lease: seconds that a receiver holds its messages without a sign of life.
        clock: seconds since the epoch.
        mine: the receivers of this process that still hold their lease.

    Attributes:
        search: finds messages by their ids.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        lease: float,
        clock: Callable[[], float],
        mine: set[Receiver],
    ) -> None:
        self._db = connection
        self._path = path
        self._clock = clock
        self._receivers = Receivers(connection, lease, clock, mine)
        self.search = Search(connection, path)

    # -- queues ------------------------------------------------------------------------------------

    def create_queue(self, queue: str) -> None:
        """Make a plain queue, unless there is one."""
        # A queue of delayed messages that has the name gives way.
        self._db.execute(
            "UPDATE queues SET name = name || '~' || id WHERE name = ? AND delay_ms = 0", (queue,)
        )
        self._db.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (queue,))

    def delete_queue(self, queue: str) -> None:
        """Delete a queue that holds nothing, if there is one."""
        if (row := self._find(queue)) is None:
            return
        held = self._db.execute("SELECT 1 FROM messages WHERE queue = ? LIMIT 1", row[:1])
        if held.fetchone() is not None:
            raise BrokerError(f"{self._path}: the queue {queue!r} holds messages and stays")
        self._db.execute("DELETE FROM queues WHERE id = ?", row[:1])

    def prepare(self, topology: Topology) -> None:
        """Make the stations of `topology`."""
        self._queue(topology.source)
        for station in topology.stations:
            self.create_queue(queue_name(station))
        if topology.single:
            lanes = [(queue_name(topology.parked(lane)),) for lane in topology.lanes]
            self._db.executemany("UPDATE queues SET single = 1 WHERE name = ?", lanes)

    def queues(self) -> list[Queue]:
        """Return all queues."""
        return self._db.execute(
            "SELECT q.name, q.delay_ms, target.name, q.single FROM queues AS q"
            " LEFT JOIN queues AS target ON target.id = q.returns_to"
        ).fetchall()

    def add_queues(self, queues: Sequence[Queue]) -> None:
        """Make those of another file that are absent here."""
        absent = [queue for queue in queues if self._find(queue[0]) is None]
        for name, delay_ms, _, single in absent:
            self._db.execute(
                "INSERT INTO queues (name, delay_ms, single) VALUES (?, ?, ?)",
                (name, delay_ms, single),
            )
        self._db.executemany(
            "UPDATE queues SET returns_to = (SELECT id FROM queues WHERE name = ?) WHERE name = ?",
            [(target, name) for name, _, target, _ in absent],
        )

    def message_count(self) -> int:
        """Count all messages: those that wait, are delayed, or are held by a receiver."""
        (count,) = self._db.execute("SELECT count(*) FROM messages").fetchone()
        return int(count)

    def has_queue(self, queue: str) -> bool:
        """Return whether there is a queue of the name."""
        return self._find(queue) is not None

    def depth(self, station: Station | str) -> int:
        """Count what waits in `station`."""
        where, queue_id = self._waiting_in(station)
        (count,) = self._db.execute(
            f"SELECT count(*) FROM messages WHERE {where}",  # noqa: S608 (fixed text)
            (queue_id,),
        ).fetchone()
        return int(count)

    def peek(self, station: Station | str, limit: int) -> list[Message]:
        """Read what waits in `station`, oldest first."""
        where, queue_id = self._waiting_in(station)
        rows = self._db.execute(
            f"SELECT properties, body FROM messages WHERE {where} ORDER BY id LIMIT ?",  # noqa: S608
            (queue_id, limit),
        )
        return [codec.decode(properties, body) for properties, body in rows]

    def publish(self, to: Station | str, message: Message, delay: float) -> None:
        """Put `message` at the tail of `to`, now or when its delay is over."""
        name = queue_name(to)
        stored = codec.encode(message)
        if not delay and self._put(name, stored):
            return
        row = self._find(name)
        if row is None or (isinstance(to, Station) and to.kind == "delayed"):
            raise MoveRefusedError(f"{self._no_queue(name)}; the message was not stored")
        (queue_id, delay_ms) = row
        due: tuple[float | None, str | None, float | None] = (None, None, None)
        if delay:
            station = Station.of(to)
            check_delay(station)
            queue_id, due = self._delayed(station.queue, queue_id), self._due(delay)
        elif delay_ms is not None:  # a delay queue of an older release, named by somebody
            due = self._due(delay_ms / 1000)
        self._db.execute(
            "INSERT INTO messages (queue, due, clock, steady_due, properties, body)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (queue_id, *due, *stored),
        )

    def _put(self, name: str, stored: tuple[str, bytes]) -> bool:
        """Put a message at the tail of a queue without a delay; return whether there is one.

        One statement is faster than to look for the queue first, and most messages need no more.
        """
        try:
            put = self._db.execute(
                "INSERT INTO messages (queue, properties, body)"
                " SELECT id, ?, ? FROM queues WHERE name = ? AND delay_ms IS NULL",
                (*stored, name),
            )
        except UnicodeEncodeError:  # no queue can have that name
            return False
        return put.rowcount == 1

    def _delayed(self, source: str, source_id: int) -> int:
        """Return the queue in which messages wait until they are due in the source.

        An older release, which has a queue for each delay, returns them from this one as well. No
        older release has made a queue with a delay of 0.
        """
        row = self._db.execute(
            "SELECT id FROM queues WHERE returns_to = ? AND delay_ms = 0", (source_id,)
        ).fetchone()
        if row is not None:
            return int(row[0])
        name = queue_name(Station(source, "delayed"))
        while self._find(name) is not None:  # a queue of the user's
            name += "~"
        made = self._db.execute(
            "INSERT INTO queues (name, delay_ms, returns_to) VALUES (?, 0, ?)", (name, source_id)
        )
        assert made.lastrowid is not None  # noqa: S101 (an INSERT has just made the row)
        return made.lastrowid

    def _waiting_in(self, station: Station | str) -> tuple[str, int]:
        """Return the condition that holds for what waits in `station`, and its one parameter."""
        if isinstance(station, Station) and station.kind == "delayed":
            return _DELAYED, self._queue(station.queue)
        return _WAITING, self._queue(queue_name(station))

    # -- receivers ---------------------------------------------------------------------------------

    def subscribe(self, queue: str) -> Receiver:
        """Make a receiver."""
        return self._receivers.add(self._queue(queue))

    def receivers(self, queue: str) -> int:
        """Count the receivers of a queue, those of other processes included."""
        return self._receivers.count(self._queue(queue))

    def claim(self, queue: str, receiver: Receiver, limit: int) -> list[Claimed]:
        """Claim up to `limit` messages, oldest first, for `receiver` to hold.

        None, where the queue has one receiver at a time and that is another.
        """
        queue_id = self._queue(queue)
        if not self._receivers.holds_lease(receiver):
            raise BrokerUnavailableError(lease_lost(self._path))
        if not self._may_claim(queue_id, receiver):
            return []
        rows = self._db.execute(
            "SELECT id, properties, body, handed_before, deaths FROM messages"
            " WHERE queue = ? AND receiver IS NULL AND due IS NULL ORDER BY id LIMIT ?",
            (queue_id, limit),
        ).fetchall()
        self._db.executemany(
            "UPDATE messages SET receiver = ? WHERE id = ?", [(receiver.id, row[0]) for row in rows]
        )
        return [
            Claimed(id_, codec.decode(properties, body), bool(handed_before), deaths)
            for id_, properties, body, handed_before, deaths in rows
        ]

    def done(self, receiver: Receiver, id_: int) -> None:
        """Delete a message that `receiver` holds."""
        if not self._receivers.holds_lease(receiver) or not self._delete(receiver, id_):
            raise DeliveryLostError(
                f"{self._path}: this receiver no longer holds the message "
                "(settled before, released, or its lease expired)"
            )

    def move(
        self, receiver: Receiver, id_: int, to: Station | str, message: Message, delay: float
    ) -> None:
        """Delete a message that `receiver` holds and put `message` at the tail of `to`."""
        self.done(receiver, id_)
        self.publish(to, message, delay)

    def quiesce(self, receiver: Receiver, received: Collection[int]) -> None:
        """Requeue what a receiver holds and has not `received`; another may be the active one."""
        if not self._receivers.holds_lease(receiver):
            return
        held = self._db.execute("SELECT id FROM messages WHERE receiver = ?", (receiver.id,))
        unseen = {id_ for (id_,) in held}.difference(received)
        self._db.executemany(
            "UPDATE messages SET receiver = NULL WHERE id = ?", [(id_,) for id_ in unseen]
        )
        self._receivers.step_down(receiver)

    def release(self, receiver: Receiver, handed: Iterable[int]) -> None:
        """Requeue all that a receiver holds; what was `handed` out comes back as redelivered."""
        if not self._receivers.holds_lease(receiver):
            return
        self._db.executemany(
            "UPDATE messages SET handed_before = 1 WHERE id = ? AND receiver = ?",
            [(id_, receiver.id) for id_ in handed],
        )
        self._db.execute("UPDATE messages SET receiver = NULL WHERE receiver = ?", (receiver.id,))
        self._receivers.remove(receiver)

    def _delete(self, receiver: Receiver, id_: int) -> bool:
        deleted = self._db.execute(
            "DELETE FROM messages WHERE id = ? AND receiver = ?", (id_, receiver.id)
        )
        return deleted.rowcount > 0

    def _may_claim(self, queue_id: int, receiver: Receiver) -> bool:
        (single, active) = self._db.execute(
            "SELECT single, active FROM queues WHERE id = ?", (queue_id,)
        ).fetchone()
        if not single or active == receiver.id:
            return True
        if active is not None:
            return False
        self._db.execute("UPDATE queues SET active = ? WHERE id = ?", (receiver.id, queue_id))
        return True

    # -- time --------------------------------------------------------------------------------------

    def renew(self) -> list[Receiver]:
        """Renew the leases of this process's receivers; return those that were lost."""
        return self._receivers.renew()

    def has_due(self) -> bool:
        """Return whether `release_due` has something to do. Reads only."""
        now = self._now()
        return any(
            self._db.execute(query, now).fetchone() is not None for query in (_IS_DUE, _IS_EARLY)
        ) or bool(self._receivers.dead())

    def release_due(self) -> None:
        """Return the delayed messages that are due, and what dead receivers held."""
        for id_ in self._receivers.dead():
            self._db.execute(
                "UPDATE messages SET receiver = NULL, handed_before = 1, deaths = deaths + 1"
                " WHERE receiver = ?",
                (id_,),
            )
            self._receivers.remove_id(id_)
        now = self._now()
        # So that an older release, which reads the time of day alone, is not too early either.
        self._db.execute(_CORRECT_EARLY, now)
        self._db.execute(_RETURN_DUE, now)
        self._db.execute(_DELETE_DUE, now)

    def _due(self, delay: float) -> tuple[float, str | None, float | None]:
        """Return when a message is due by the time of day, and by which steady clock when."""
        due = self._clock() + delay
        if liveness.clock() == liveness.UNKNOWN:
            return due, None, None
        return due, liveness.clock(), liveness.steady() + delay

    def _now(self) -> dict[str, str | float]:
        return {
            "wall": self._clock(),
            "clock": liveness.clock(),
            "steady": liveness.steady(),
            "step": _STEP,
        }

    # -- errors ------------------------------------------------------------------------------------

    def _find(self, queue: str) -> tuple[int, int | None] | None:
        """Return a queue's id and delay."""
        try:
            row: tuple[int, int | None] | None = self._db.execute(
                "SELECT id, delay_ms FROM queues WHERE name = ?", (queue,)
            ).fetchone()
        except UnicodeEncodeError:  # no queue can have that name
            return None
        return row

    def _queue(self, queue: str) -> int:
        row = self._find(queue)
        if row is None:
            raise QueueNotFoundError(self._no_queue(queue))
        return row[0]

    def _no_queue(self, queue: str) -> str:
        return f"{self._path} has no queue {queue!r}: make it with create_queue({queue!r})"


def lease_lost(path: str) -> str:
    """Return why a receiver holds nothing any more."""
    return (
        f"{path}: this receiver's messages were given back: its lease expired before it was "
        "renewed (was the process stopped, or the clock set?), or the file was moved, deleted or "
        "replaced"
    )
