"""The open database and all that belongs to it, to be left together."""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fusewire.brokers.sqlite.checkpoint import Checkpointer, copy_all
from fusewire.brokers.sqlite.database import open_database
from fusewire.brokers.sqlite.identity import FileIdentity, torn
from fusewire.brokers.sqlite.store import Store
from fusewire.errors import BrokerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fusewire.brokers.sqlite.receivers import Receiver
    from fusewire.brokers.sqlite.store import Queue

_OPENING = 2.0  # seconds that it waits for others to leave a file that was torn apart
_RETREAT = 0.2  # seconds in which a process that opens it finds out that it was torn apart
_PAUSE = 0.01  # seconds

_opened: set[OpenFile] = set()
"""All that are open in this process. Its connections to one file share one index, as SQLite has it,
whatever the index's name leads to when they are made."""


class OpenFile:
    """Opens the file when made. Used by one thread.

    Args:
        path: the file.
        lease: seconds of a receiver's lease.
        clock: seconds since the epoch.
        mine: the receivers of this process that still hold their lease.
        queues: what is made there if it is absent.

    Raises:
        sqlite3.Error: SQLite cannot open it.
        BrokerError: it is not a file of Fusewire's, or a newer Fusewire's; or it goes away.
    """

    def __init__(
        self,
        path: str,
        lease: float,
        clock: Callable[[], float],
        mine: set[Receiver],
        queues: Sequence[Queue] = (),
    ) -> None:
        limit = time.monotonic() + _OPENING
        while not self._open(path, patient=time.monotonic() < limit):
            if time.monotonic() > limit:
                raise BrokerUnavailableError(
                    f"{path}: its -wal or -shm was deleted, and another connection of this process "
                    "still uses it; close that one"
                )
            # As soon as those that have it open look at it, they save what they have, and leave it.
            time.sleep(_PAUSE)
        self.store = Store(self.connection, path, lease, clock, mine)
        try:
            self._make(queues)
        except BaseException:
            self.close()
            raise

    def _open(self, path: str, *, patient: bool) -> bool:
        """Open the file; return whether it has its own log and index."""
        before = FileIdentity(path)
        if (patient and torn(path)) or _clashes(before):
            return False
        with ExitStack() as opened:
            self.connection = opened.enter_context(closing(open_database(path)))
            self.identity = FileIdentity(path)
            self.checkpointer = opened.enter_context(closing(Checkpointer(self.connection, path)))
            self._guard = opened.enter_context(closing(_open_read_only(path)))
            _opened.add(self)
            opened.callback(_opened.discard, self)
            if before.complete and not before.intact():
                # Deleted in between. Those that have them open can save what they hold as long as
                # no others stand in their place.
                self.identity.unlink_beside()
            elif self.identity.complete and self.identity.intact() and not _clashes(self.identity):
                opened.pop_all()
                return True
        return False

    def _make(self, queues: Sequence[Queue]) -> None:
        if queues:
            self.connection.execute("BEGIN IMMEDIATE")
            self.store.add_queues(queues)
            self.connection.execute("COMMIT")

    def close(self) -> None:
        """Close it as SQLite does: the last connection deletes log and index."""
        self._guard.close()
        self._close_writers()

    def leave(self) -> None:
        """Close it, and delete nothing that others have made under the names of log and index."""
        self.identity.unlink_beside()
        # One that cannot write deletes nothing, so that one has to be the last.
        self._close_writers()
        self._guard.close()

    def _close_writers(self) -> None:
        _opened.discard(self)
        self.checkpointer.close()
        self.connection.close()

    def save(self) -> bool:
        """Copy the log into the file; return whether the name leads to all that it held then."""
        found = self.identity.leads_to_file()
        if found and self.identity.log_is_empty():
            return True  # another process was faster
        limit = time.monotonic() + _RETREAT
        while found and self.identity.leads_elsewhere() and time.monotonic() < limit:
            time.sleep(_PAUSE)
        if self.identity.leads_elsewhere():
            # To copy into a file that others use with another log would destroy it.
            return False
        with suppress(sqlite3.Error):
            # One that was moved is then whole without its log, wherever it is.
            return copy_all(self.connection) and found
        return False

    def inventory(self) -> tuple[int | None, list[Queue]]:
        """Return how many messages it holds, None if it cannot be read, and its queues."""
        try:
            return self.store.message_count(), self.store.queues()
        except sqlite3.Error:
            return None, []


def _open_read_only(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on it is open
    return connection


def _clashes(identity: FileIdentity) -> bool:
    return any(other.identity.clashes(identity) for other in tuple(_opened))
