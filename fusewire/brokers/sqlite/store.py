"""The broker's operations as SQL. Each method is run by the worker, inside its transaction.

A receiver is one subscription. What it has in hand carries its id, and its lease lies in one row of
its own: renewing it costs one update, however much is in hand. When the lease has expired, whoever
comes next takes the messages back and deletes the row. Ids of receivers are never used twice, so a
delivery that was lost cannot be settled afterwards, not even by the receiver that had it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from fusewire.brokers.sqlite import codec, liveness
from fusewire.brokers.topology import milliseconds
from fusewire.errors import (
    BrokerUnavailableError,
    DeliveryLostError,
    MoveRefusedError,
    QueueNotFoundError,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from fusewire.brokers.message import Message
    from fusewire.brokers.topology import Topology


class Claimed(NamedTuple):
    """A message that a receiver has in hand."""

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
        clock: seconds since the epoch. A lease outlives processes and reboots, so it cannot be
            monotonic.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: str, lease: float, clock: Callable[[], float]
    ) -> None:
        self._db = connection
        self._path = path
        self._lease = lease
        self._clock = clock
        self._mine: set[int] = set()

    @property
    def has_receivers(self) -> bool:
        """Whether receivers of this process live."""
        return bool(self._mine)

    # -- queues ------------------------------------------------------------------------------------

    def create_queue(self, queue: str) -> None:
        """Make a plain queue, unless there is one."""
        self._db.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (queue,))

    def prepare(self, topology: Topology) -> None:
        """Make the queues of `topology`, and let those for delay return to its source."""
        source = self._queue(topology.source)
        for name in topology.derived:
            self.create_queue(name)
        if topology.single:
            lanes = [(topology.parked(lane),) for lane in topology.lanes]
            self._db.executemany("UPDATE queues SET single = 1 WHERE name = ?", lanes)
        for tier in topology.delay_tiers:
            queue = self._queue(topology.delay(tier))
            changed = self._db.execute(
                "UPDATE queues SET delay_ms = ?, returns_to = ? WHERE id = ? AND delay_ms IS NULL",
                (milliseconds(tier), source, queue),
            )
            if changed.rowcount:  # it may have been a plain queue that already holds something
                self._db.execute(
                    "UPDATE messages SET due = ? WHERE queue = ? AND due IS NULL",
                    (self._clock() + milliseconds(tier) / 1000, queue),
                )

    def depth(self, queue: str) -> int:
        """Count what waits in `queue`."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM messages WHERE queue = ? AND receiver IS NULL",
            (self._queue(queue),),
        ).fetchone()
        return int(count)

    def peek(self, queue: str, limit: int) -> list[Message]:
        """Read what waits in `queue`, oldest first."""
        rows = self._db.execute(
            "SELECT properties, body FROM messages WHERE queue = ? AND receiver IS NULL"
            " ORDER BY id LIMIT ?",
            (self._queue(queue), limit),
        )
        return [codec.decode(properties, body) for properties, body in rows]

    def publish(self, queue: str, message: Message) -> None:
        """Put `message` at the tail of `queue`."""
        row = self._db.execute(
            "SELECT id, delay_ms FROM queues WHERE name = ?", (queue,)
        ).fetchone()
        if row is None:
            raise MoveRefusedError(f"{self._no_queue(queue)}; the message was not stored")
        (queue_id, delay_ms) = row
        due = None if delay_ms is None else self._clock() + delay_ms / 1000
        self._db.execute(
            "INSERT INTO messages (queue, due, properties, body) VALUES (?, ?, ?, ?)",
            (queue_id, due, *codec.encode(message)),
        )

    # -- receivers ---------------------------------------------------------------------------------

    def subscribe(self, queue: str) -> int:
        """Make a receiver."""
        self._queue(queue)
        receiver = self._db.execute(
            "INSERT INTO receivers (lease_until, home, pid) VALUES (?, ?, ?)",
            (self._clock() + self._lease, liveness.home(), os.getpid()),
        ).lastrowid
        assert receiver is not None  # noqa: S101 (an INSERT has just made the row)
        self._mine.add(receiver)
        return receiver

    def claim(self, queue: str, receiver: int, limit: int) -> list[Claimed]:
        """Put up to `limit` messages, oldest first, into the hand of `receiver`.

        None, where the queue has one receiver at a time and that is another.
        """
        queue_id = self._queue(queue)
        self._check_receiver(receiver)
        if not self._may_claim(queue_id, receiver):
            return []
        rows = self._db.execute(
            "SELECT id, properties, body, handed_before, deaths FROM messages"
            " WHERE queue = ? AND receiver IS NULL ORDER BY id LIMIT ?",
            (queue_id, limit),
        ).fetchall()
        self._db.executemany(
            "UPDATE messages SET receiver = ? WHERE id = ?", [(receiver, row[0]) for row in rows]
        )
        return [
            Claimed(id_, codec.decode(properties, body), bool(handed_before), deaths)
            for id_, properties, body, handed_before, deaths in rows
        ]

    def done(self, receiver: int, id_: int) -> None:
        """Delete a message in hand."""
        deleted = self._db.execute(
            "DELETE FROM messages WHERE id = ? AND receiver = ?", (id_, receiver)
        )
        if not deleted.rowcount:
            raise DeliveryLostError(
                f"{self._path}: the message is no longer in this receiver's hand "
                "(settled before, released, or its lease expired)"
            )

    def move(self, receiver: int, id_: int, queue: str, message: Message) -> None:
        """Delete a message in hand and put `message` at the tail of `queue`."""
        self.done(receiver, id_)
        self.publish(queue, message)

    def release(self, receiver: int, handed: Iterable[int]) -> None:
        """Give back all that a receiver has; what was `handed` out comes back as redelivered."""
        self._db.executemany(
            "UPDATE messages SET handed_before = 1 WHERE id = ? AND receiver = ?",
            [(id_, receiver) for id_ in handed],
        )
        self._db.execute("UPDATE messages SET receiver = NULL WHERE receiver = ?", (receiver,))
        self._forget(receiver)
        self._mine.discard(receiver)

    def _may_claim(self, queue_id: int, receiver: int) -> bool:
        (single, active) = self._db.execute(
            "SELECT single, active FROM queues WHERE id = ?", (queue_id,)
        ).fetchone()
        if not single or active == receiver:
            return True
        if active is not None:
            return False
        self._db.execute("UPDATE queues SET active = ? WHERE id = ?", (receiver, queue_id))
        return True

    def _forget(self, receiver: int) -> None:
        self._db.execute("UPDATE queues SET active = NULL WHERE active = ?", (receiver,))
        self._db.execute("DELETE FROM receivers WHERE id = ?", (receiver,))

    # -- time --------------------------------------------------------------------------------------

    def renew(self) -> list[int]:
        """Renew the leases of this process's receivers; return those that were lost."""
        until = self._clock() + self._lease
        lost = []
        for receiver in self._mine:
            renewed = self._db.execute(
                "UPDATE receivers SET lease_until = ? WHERE id = ?", (until, receiver)
            )
            if not renewed.rowcount:
                lost.append(receiver)
        self._mine.difference_update(lost)
        return lost

    def is_time(self) -> bool:
        """Say whether `on_time` has something to do. Reads only."""
        return self._is_due() or bool(self._dead_receivers())

    def on_time(self) -> None:
        """Return the delayed messages that are due, and what dead receivers had in hand."""
        for receiver in self._dead_receivers():
            self._db.execute(
                "UPDATE messages SET receiver = NULL, handed_before = 1, deaths = deaths + 1"
                " WHERE receiver = ?",
                (receiver,),
            )
            self._forget(receiver)
        if self._is_due():
            now = self._clock()
            # New rows, because a message that returns goes to the tail of its queue.
            self._db.execute(
                "INSERT INTO messages (queue, properties, body)"
                " SELECT returns_to, properties, body FROM messages"
                " JOIN queues ON queues.id = messages.queue"
                " WHERE due <= ? AND receiver IS NULL ORDER BY due, messages.id",
                (now,),
            )
            self._db.execute("DELETE FROM messages WHERE due <= ? AND receiver IS NULL", (now,))

    def _is_due(self) -> bool:
        row = self._db.execute(
            "SELECT 1 FROM messages WHERE due <= ? AND receiver IS NULL LIMIT 1", (self._clock(),)
        ).fetchone()
        return row is not None

    def _dead_receivers(self) -> list[int]:
        now = self._clock()
        return [
            receiver
            for receiver, lease_until, home, pid in self._db.execute(
                "SELECT id, lease_until, home, pid FROM receivers"
            )
            # This process lives, whatever its clock says: it has been set, or the host was asleep.
            if receiver not in self._mine and (lease_until <= now or liveness.known_dead(home, pid))
        ]

    # -- errors ------------------------------------------------------------------------------------

    def _queue(self, queue: str) -> int:
        row = self._db.execute("SELECT id FROM queues WHERE name = ?", (queue,)).fetchone()
        if row is None:
            raise QueueNotFoundError(self._no_queue(queue))
        (queue_id,) = row
        return int(queue_id)

    def _no_queue(self, queue: str) -> str:
        return f"{self._path} has no queue {queue!r}: make it with create_queue({queue!r})"

    def _check_receiver(self, receiver: int) -> None:
        row = self._db.execute("SELECT 1 FROM receivers WHERE id = ?", (receiver,)).fetchone()
        if row is None:
            self._mine.discard(receiver)
            raise BrokerUnavailableError(lease_lost(self._path))


def lease_lost(path: str) -> str:
    """Say that a receiver gave no sign of life for too long."""
    return (
        f"{path}: this receiver's lease expired before it was renewed (was the process stopped, or "
        "the clock set?), so what it had in hand was given back"
    )
