"""The open database and all that belongs to it, to be left together."""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fusewire.brokers.sqlite._checkpoint import Checkpointer, copy_all
from fusewire.brokers.sqlite._database import connect, open_database
from fusewire.brokers.sqlite._identity import FileIdentity, torn
from fusewire.brokers.sqlite._store import Store
from fusewire.errors import BrokerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fusewire.brokers.sqlite._receivers import Receiver
    from fusewire.brokers.sqlite._store import Queue

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
        self._path = path
        limit = time.monotonic() + _OPENING
        patient = True
        while not self._open(patient=patient):
            if not patient:
                raise BrokerUnavailableError(
                    f"{path}: it was moved, deleted or replaced, or its -wal or -shm was, and "
                    "another connection of this process still uses the former one; close that one"
                )
            # As soon as those that have it open look at it, they save what they have, and leave it.
            time.sleep(_PAUSE)
            patient = time.monotonic() < limit
        self.store = Store(self.connection, path, lease, clock, mine)
        try:
            self._make(queues)
        except BaseException:
            self.close()
            raise

    def _open(self, *, patient: bool) -> bool:
        """Open the file; return whether it has its own log and index."""
        path = self._path
        before = FileIdentity(path)
        if (patient and torn(path)) or _clashes(before):
            return False
        with ExitStack() as opened:
            self.connection = opened.enter_context(closing(open_database(path)))
            self.identity = FileIdentity(path)
            if not (self.identity.complete and self.identity.is_open()):
                return False
            self.checkpointer = opened.enter_context(closing(Checkpointer(self.connection, path)))
            self._guard = opened.enter_context(closing(_open_read_only(path)))
            _opened.add(self)
            opened.callback(_opened.discard, self)
            if before.complete and not before.intact():
                # Deleted in between. Those that have them open can save what they hold as long as
                # no others stand in their place.
                self.identity.unlink_beside()
            elif self.identity.intact() and not _clashes(self.identity):
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
        self.close_as_it_is()

    def close_as_it_is(self) -> None:
        """Close it, and leave log and index where they are."""
        # One that cannot write deletes nothing, so that one has to be the last.
        self._close_writers()
        self._guard.close()

    def _close_writers(self) -> None:
        _opened.discard(self)
        self.checkpointer.close()
        self.connection.close()

    def save(self) -> bool:
        """Copy the log into the file; return whether the name leads to all that it held then.

        Raises:
            BrokerUnavailableError: it cannot be copied now, and is lost if the file is left.
        """
        if not self.identity.leads_to_file():
            with suppress(sqlite3.Error):
                copy_all(self.connection)  # one that was moved is then whole, wherever it is
            return False
        limit = time.monotonic() + _RETREAT
        while self.identity.others_beside():
            # Another process has saved it, or uses the file with another log: to copy this one
            # then, too, would destroy it.
            if self.identity.log_is_empty():
                return True
            if time.monotonic() > limit:
                return False
            time.sleep(_PAUSE)
        # Also where the log is empty: this waits for a transaction of another process.
        try:
            if copy_all(self.connection):
                return True
            reason = "a reader holds it"
        except sqlite3.Error as error:
            reason = str(error)
        raise BrokerUnavailableError(
            f"{self._path}: its -wal or -shm was deleted while it was open, and what they hold "
            f"cannot be copied into the file yet: {reason}"
        )

    def anchor(self) -> sqlite3.Connection:
        """Keep another file from being taken for this one once it is left: open it, and no more.

        While it is open nobody gets its number. It takes no locks and does not open the index.
        """
        return connect(_read_only(self._path), uri=True)

    def inventory(self) -> tuple[int | None, list[Queue]]:
        """Return how many messages it holds, None if it cannot be read, and its queues."""
        try:
            return self.store.message_count(), self.store.queues()
        except sqlite3.Error:
            return None, []


def _open_read_only(path: str) -> sqlite3.Connection:
    connection = connect(_read_only(path), uri=True)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on it is open
    return connection


def _read_only(path: str) -> str:
    return f"{Path(path).as_uri()}?mode=ro"


def _clashes(identity: FileIdentity) -> bool:
    return any(other.identity.clashes(identity) for other in tuple(_opened))
