"""The file: its format, how it is opened, and what SQLite's errors about it mean."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from fusewire.errors import BrokerError, BrokerUnavailableError

FORMAT = 2
"""The version of the tables, kept in the file as ``user_version``."""

BUSY_TIMEOUT = 5.0
"""Seconds that a call waits for another process's transaction. Ours take milliseconds."""

_APPLICATION_ID = 0x46757365  # "Fuse", at the place where file(1) looks for it

_STEPS = (
    """
CREATE TABLE queues (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    delay_ms INTEGER,                         -- a delay queue: how long a message stays,
    returns_to INTEGER REFERENCES queues (id) -- and where it goes then
);
CREATE TABLE receivers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,     -- never used twice: it fences lost deliveries
    lease_until REAL NOT NULL,                -- seconds since the epoch
    home TEXT NOT NULL,                       -- boot and pid namespace, empty where unknown
    pid INTEGER NOT NULL
);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,     -- the order within a queue
    queue INTEGER NOT NULL REFERENCES queues (id),
    receiver INTEGER,                         -- in whose hand; NULL while it waits
    handed_before INTEGER NOT NULL DEFAULT 0, -- whether a receiver had it and did not settle it
    due REAL,                                 -- seconds since the epoch, only in a delay queue
    properties TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX messages_waiting ON messages (queue, id) WHERE receiver IS NULL;
CREATE INDEX messages_in_hand ON messages (receiver) WHERE receiver IS NOT NULL;
CREATE INDEX messages_due ON messages (due) WHERE due IS NOT NULL;
""",
    """
-- Whether it has one receiver at a time, and which that is.
ALTER TABLE queues ADD COLUMN single INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN active INTEGER;
""",
)
"""What makes each format of the one before it; the first, of an empty file."""

_COLUMNS = (
    # How many receivers died while they held it.
    ("messages", "deaths", "INTEGER NOT NULL DEFAULT 0"),
    # When it is due, and until when a lease holds, on a clock that nobody sets: on which one
    # (boot and time namespace) and at what time of it. Empty where it is not known.
    ("messages", "clock", "TEXT"),
    ("messages", "steady_due", "REAL"),
    ("receivers", "clock", "TEXT"),
    ("receivers", "steady_until", "REAL"),
    # When its process began, in ticks since the boot: a process id alone is used again.
    ("receivers", "started", "INTEGER"),
    # The id of the queue that it receives from. Empty where an older release made it.
    ("receivers", "queue", "INTEGER"),
)
"""Columns that came later. They do not raise the format: a release that does not know them reads
and writes the file beside one that does, and their defaults say nothing."""

_INDEX = (
    "CREATE INDEX IF NOT EXISTS messages_steady_due ON messages (clock, steady_due)"
    " WHERE steady_due IS NOT NULL"
)


def open_database(path: str) -> sqlite3.Connection:
    """Open the file, make it if it is absent, and return a connection in autocommit mode.

    Raises:
        sqlite3.Error: SQLite cannot; see `translate`.
        BrokerError: it is not a file of Fusewire's, or a newer Fusewire's.
    """
    connection = connect(path)
    try:
        connection.execute("BEGIN")  # so that all of the format is read at one time
        complete = _format(connection, path) == FORMAT and not _missing_columns(connection)
        connection.execute("COMMIT")
        _use_wal(connection, path)
        use_safe_writes(connection)
        if not complete:
            _make_tables(connection, path)
        # The first read after a change of mode makes the log.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def connect(database: str, *, uri: bool = False) -> sqlite3.Connection:
    """Return a connection in autocommit mode, which a forked child may close in any thread."""
    return sqlite3.connect(
        database, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, uri=uri
    )


def use_safe_writes(connection: sqlite3.Connection) -> None:
    """Let nothing return before it is on the disk, and copy the log back only when told to."""
    connection.execute("PRAGMA synchronous = FULL")  # a commit has reached the disk
    connection.execute("PRAGMA fullfsync = ON")  # also on macOS, where fsync alone does not
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # see `checkpoint`


def _use_wal(connection: sqlite3.Connection, path: str) -> None:
    limit = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            # Two processes that make one file together: SQLite refuses the change of mode without
            # waiting, because they could wait for each other.
            if not _is(error, sqlite3.SQLITE_BUSY) or time.monotonic() > limit:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise BrokerError(
                f"{path}: SQLite cannot keep a write-ahead log there (mode {mode!r}); "
                "put the file on a local disk"
            )
        return


def _make_tables(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Asked again: another process may have been faster.
        for step in _STEPS[_format(connection, path) :]:
            for statement in step.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        for table, column, declaration in _missing_columns(connection):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {declaration}")
        connection.execute(_INDEX)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _missing_columns(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    present = set(
        connection.execute(
            "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
        )
    )
    return [each for each in _COLUMNS if each[:2] not in present]


def _format(connection: sqlite3.Connection, path: str) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION_ID and (application, version, tables) != (0, 0, 0):
        raise BrokerError(
            f"{path} is an SQLite database of another program; give Fusewire a file of its own"
        )
    if version > FORMAT:
        raise BrokerError(
            f"{path} has format {version}, made by a newer Fusewire; this one reads up to "
            f"{FORMAT}: upgrade Fusewire, or give it another file"
        )
    return int(version)


def commits_of_others(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has committed."""
    with closing(connection.execute("PRAGMA data_version")) as cursor:
        (version,) = cursor.fetchone()
    return int(version)


def _is(error: sqlite3.Error, *codes: int) -> bool:
    # The low byte of an extended result code is the primary one. The module's own errors have none.
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in codes


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether another process has held the file for too long."""
    return _is(error, sqlite3.SQLITE_BUSY)


def may_be_stored(error: sqlite3.Error) -> bool:
    """Return whether a COMMIT that failed so may still take effect after a crash."""
    # When flushing the log fails, its frames may be on the disk all the same.
    return _is(error, sqlite3.SQLITE_IOERR)


def translate(error: sqlite3.Error, path: str) -> BrokerError:
    """Return the error that says what is wrong with the file, and what to do."""
    for codes, error_type, advice in _ADVICE:
        if _is(error, *codes):
            return error_type(f"{path}: {error}; {advice}")
    return BrokerError(f"{path}: {error}")


_ADVICE: tuple[tuple[tuple[int, ...], type[BrokerError], str], ...] = (
    (
        (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
        BrokerUnavailableError,
        f"another process has held it for {BUSY_TIMEOUT:g} s: look for one that hangs",
    ),
    (
        (sqlite3.SQLITE_FULL,),
        BrokerUnavailableError,
        "free space on its disk",
    ),
    (
        (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH),
        BrokerUnavailableError,
        "it must be writable: check the permissions of the file and of its folder",
    ),
    (
        (sqlite3.SQLITE_CANTOPEN,),
        BrokerUnavailableError,
        "check that its folder exists and may be written, and that it is not a folder itself",
    ),
    (
        (sqlite3.SQLITE_IOERR,),
        BrokerUnavailableError,
        "check its disk",
    ),
    (
        (sqlite3.SQLITE_NOTADB,),
        BrokerError,
        "give Fusewire a file of its own",
    ),
    (
        (sqlite3.SQLITE_CORRUPT,),
        BrokerError,
        "it is damaged: move it away, and restore it or recover it with sqlite3's .recover",
    ),
)
