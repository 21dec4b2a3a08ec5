"""Copying the log back into the file.

SQLite's automatic checkpoint runs beside other processes' commits. Up to 3.51.2 that may skip a
committed transaction (https://www.sqlite.org/wal.html#walresetbug), which would be a lost message,
and most Pythons carry an older SQLite. So both ways here keep every commit out meanwhile.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from fusewire.brokers.sqlite._database import BUSY_TIMEOUT, connect, use_safe_writes
from fusewire.brokers.sqlite._identity import names_beside

if TYPE_CHECKING:
    import sqlite3

_BYTES = 4 * 2**20  # a log of SQLite's own default: 1000 pages of 4 KiB

_KEPT = _BYTES * 15 // 16
"""Bytes of the log that stay when it begins from the start. A commit that writes over them is
faster than one that makes the file longer: the file system then writes down its new length, too.
It is so much less than `_BYTES` that a log that has begun from the start is seen to be shorter."""

_PAUSE = 0.01  # seconds


class Checkpointer:
    """Copies the log back when it has grown, and waits for no reader.

    A reader, a backup say, keeps SQLite from copying what is younger than it. Waiting for its end
    would block all writers. So what can be copied is copied, and the log grows meanwhile.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        # SQLite refuses a checkpoint on the connection that is in a transaction.
        self._copying = connect(path)
        use_safe_writes(self._copying)
        self._copying.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens the log
        self._log, _ = names_beside(path)
        self._copied_at = 0
        self._limit = _BYTES
        # When all is copied, the next commit begins the log from the start and cuts it off there.
        connection.execute(f"PRAGMA journal_size_limit = {_KEPT}")

    def close(self) -> None:
        """Close its connection."""
        self._copying.close()

    def is_due(self) -> bool:
        """Return whether the log has grown enough."""
        size = self._size()
        if size < self._copied_at:  # it began from the start
            self._copied_at, self._limit = 0, _BYTES
        return size >= self._limit

    def run(self) -> None:
        """Copy what can be copied. Call it while the other connection is in a transaction.

        Raises:
            sqlite3.Error: SQLite cannot; what was committed stays committed.
        """
        size = self._size()
        # PASSIVE waits for nobody, but does not keep commits out; the transaction does that.
        self._copying.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._copied_at, self._limit = size, size + _BYTES

    def _size(self) -> int:
        try:
            return os.stat(self._log).st_size  # noqa: PTH116 (a Path a commit costs more than the call)
        except OSError:  # deleted
            return 0


def copy_all(connection: sqlite3.Connection) -> bool:
    """Copy the whole log back, waiting for writers and readers; return whether all is copied.

    Raises:
        sqlite3.Error: SQLite cannot.
    """
    limit = time.monotonic() + BUSY_TIMEOUT
    while True:
        # TRUNCATE takes the write lock first, so that no commit can come between.
        (_, frames, copied) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if frames == copied >= 0:
            return True
        # Both are -1 while another process copies.
        if time.monotonic() > limit:
            return False
        time.sleep(_PAUSE)
