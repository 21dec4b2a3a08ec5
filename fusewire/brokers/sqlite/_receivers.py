"""Receivers: how long they may hold messages, and which of them are dead.

A receiver is one subscription. The messages that it holds carry its id, and its lease lies in one
row of its own: renewing it costs one update, however many messages it holds.

A lease outlives its process and may outlive the boot, so it is written down as a time of day. But
that clock can be set, and would then take messages from processes that live. So it is written down
a second time, on a clock that nobody sets; that one decides among the processes that share it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fusewire.brokers.sqlite import _liveness as liveness

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

_LOOK_AT_STARTS = 1.0  # seconds between looks for a process that has a dead one's id


class Receiver:
    """One subscription of this process. It means nothing in another file, whatever its id there."""

    __slots__ = ("id",)

    def __init__(self, id_: int) -> None:
        self.id = id_


class Receivers:
    """The receivers in one database. Used by one thread, inside a transaction.

    Args:
        connection: the open database.
        lease: seconds that a receiver holds its messages without a sign of life.
        clock: seconds since the epoch.
        mine: the receivers of this process that still hold their lease.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        lease: float,
        clock: Callable[[], float],
        mine: set[Receiver],
    ) -> None:
        self._db = connection
        self._lease = lease
        self._clock = clock
        self._next_look = 0.0
        self._gone: set[int] = set()  # whose process id another process has by now
        self._mine = mine

    def add(self, queue_id: int) -> Receiver:
        """Make a receiver of this process for a queue."""
        pid = os.getpid()
        id_ = self._db.execute(
            "INSERT INTO receivers (lease_until, clock, steady_until, home, pid, started, queue)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*self._until(), liveness.home(), pid, liveness.started(pid), queue_id),
        ).lastrowid
        assert id_ is not None  # noqa: S101 (an INSERT has just made the row)
        receiver = Receiver(id_)
        self._mine.add(receiver)
        return receiver

    def count(self, queue_id: int) -> int:
        """Count the receivers of a queue.

        Those of an older release do not say which is theirs. Each of them counts for every queue,
        so that the figure is too high rather than too low while two releases share the file.
        """
        (count,) = self._db.execute(
            "SELECT count(*) FROM receivers WHERE queue = ? OR queue IS NULL", (queue_id,)
        ).fetchone()
        return int(count)

    def holds_lease(self, receiver: Receiver) -> bool:
        """Return whether `receiver` still holds its messages."""
        if receiver not in self._mine:
            return False
        row = self._db.execute("SELECT 1 FROM receivers WHERE id = ?", (receiver.id,)).fetchone()
        return row is not None  # if it is gone, `renew` reports it

    def step_down(self, receiver: Receiver) -> None:
        """Let another receiver be the active one where there is one at a time."""
        self._db.execute("UPDATE queues SET active = NULL WHERE active = ?", (receiver.id,))

    def remove(self, receiver: Receiver) -> None:
        """Forget a receiver of this process that has nothing any more."""
        self._mine.discard(receiver)
        self.remove_id(receiver.id)

    def remove_id(self, id_: int) -> None:
        """Forget a receiver that has nothing any more."""
        self._db.execute("UPDATE queues SET active = NULL WHERE active = ?", (id_,))
        self._db.execute("DELETE FROM receivers WHERE id = ?", (id_,))
        self._gone.discard(id_)

    def renew(self) -> list[Receiver]:
        """Renew the leases of this process's receivers; return those that were lost."""
        until = self._until()
        lost = []
        for receiver in self._mine:
            renewed = self._db.execute(
                "UPDATE receivers SET lease_until = ?, clock = ?, steady_until = ? WHERE id = ?",
                (*until, receiver.id),
            )
            if not renewed.rowcount:
                lost.append(receiver)
        self._mine.difference_update(lost)
        return lost

    def dead(self) -> list[int]:
        """Return the ids of others' receivers whose lease has ended, or whose process is dead."""
        mine = {receiver.id for receiver in self._mine}
        looks_at_starts = liveness.steady() >= self._next_look
        if looks_at_starts:
            self._next_look = liveness.steady() + _LOOK_AT_STARTS
        dead = []
        for id_, until, steady_until, clock, home, pid, started in self._db.execute(
            "SELECT id, lease_until, steady_until, clock, home, pid, started FROM receivers"
        ):
            if id_ in mine:
                continue  # this process lives, whatever the clocks say: it may have been stopped
            ours = clock == liveness.clock() != liveness.UNKNOWN
            if ours and steady_until is not None:
                ended = steady_until <= liveness.steady()
            else:
                ended = until <= self._clock()
            if looks_at_starts and liveness.known_dead(home, pid, started if ours else None):
                self._gone.add(id_)
            if ended or id_ in self._gone or liveness.known_dead(home, pid):
                dead.append(id_)
        return dead

    def _until(self) -> tuple[float, str | None, float | None]:
        if liveness.clock() == liveness.UNKNOWN:
            return self._clock() + self._lease, None, None
        return self._clock() + self._lease, liveness.clock(), liveness.steady() + self._lease
