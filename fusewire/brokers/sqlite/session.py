"""One open database: jobs in groups, a group in one transaction.

A commit waits for the disk, so all jobs that wait when a transaction begins share one commit. Each
has a savepoint: one that fails takes nothing with it.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fusewire.brokers.sqlite.database import (
    Checkpointer,
    commits_of_others,
    may_be_stored,
    open_database,
    translate,
)
from fusewire.brokers.sqlite.store import Store
from fusewire.errors import BrokerError, UnconfirmedError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_logger = logging.getLogger("fusewire.brokers.sqlite")


@dataclass(slots=True)
class Job(Generic[T]):
    """One operation and what came of it."""

    run: Callable[[Store], T]
    result: T | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class News:
    """What happened without a job of ours.

    Attributes:
        changed: another process has committed, or a delay or a lease has ended.
        lost: receivers of ours whose lease was lost.
    """

    changed: bool
    lost: tuple[int, ...] = ()


class Session:
    """Used by one thread, the one that makes it.

    Args:
        path: the file.
        lease: seconds of a receiver's lease; it is renewed every quarter of that.
        clock: seconds since the epoch.

    Raises:
        BrokerError: it cannot be opened.
    """

    def __init__(self, path: str, lease: float, clock: Callable[[], float]) -> None:
        self._path = path
        try:
            self._connection = open_database(path)
        except sqlite3.Error as error:
            raise translate(error, path) from error
        self._store = Store(self._connection, path, lease, clock)
        self._checkpointer = Checkpointer(self._connection, path)
        self._renewal_interval = lease / 4
        self._next_renewal = time.monotonic() + self._renewal_interval
        self._seen = commits_of_others(self._connection)
        self._untold = False  # something has come back in a transaction of ours

    @property
    def has_receivers(self) -> bool:
        """Whether there is something to renew and to look for."""
        return self._store.has_receivers

    def close(self) -> None:
        """Close the file. What is in hand stays so until the lease ends."""
        self._connection.close()

    def look(self) -> News:
        """Renew the leases when it is time, and look for what happened meanwhile."""
        try:
            lost = self._renew()
            self._keep_time()
            seen = commits_of_others(self._connection)
        except sqlite3.Error as error:
            _logger.warning("%s; trying again", translate(error, self._path))
            return News(changed=False)
        changed = self._untold or seen != self._seen
        self._untold = False
        self._seen = seen
        return News(changed, lost)

    def run(self, jobs: list[Job[Any]]) -> None:
        """Run `jobs` in order; each then has its result, which is on the disk, or its error."""
        try:
            # First, so that whoever counts or receives finds what is due by now.
            self._keep_time()
            self._transact(lambda store: _run_each(jobs, store, self._connection))
        except sqlite3.Error as error:
            if len(jobs) > 1:
                # One of them may be the cause (a body too big, say): let it fail alone.
                for job in jobs:
                    self.run([job])
                return
            jobs[0].error = self._explain(error)

    def tidy(self) -> None:
        """Do what nobody waits for: copy the log back when it has grown."""
        try:
            self._checkpointer.run_if_due()
        except sqlite3.Error as error:
            _logger.warning("%s; trying again", translate(error, self._path))

    def _renew(self) -> tuple[int, ...]:
        if not self.has_receivers or time.monotonic() < self._next_renewal:
            return ()
        lost = self._transact(Store.renew)
        self._next_renewal = time.monotonic() + self._renewal_interval
        return tuple(lost)

    def _keep_time(self) -> None:
        if self._store.is_time():
            self._transact(Store.on_time)
            self._untold = True

    def _transact(self, run: Callable[[Store], T]) -> T:
        # IMMEDIATE: a transaction that begins by reading cannot wait for another that writes.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = run(self._store)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite itself rolls back after some errors
                self._connection.execute("ROLLBACK")
            raise
        return result

    def _explain(self, error: sqlite3.Error) -> BrokerError:
        explained = translate(error, self._path)
        if may_be_stored(error):
            explained = UnconfirmedError(f"{explained}; it may or may not have been stored")
        explained.__cause__ = error
        return explained


def _run_each(jobs: list[Job[Any]], store: Store, connection: sqlite3.Connection) -> None:
    for job in jobs:
        job.error = None  # of a first run in a larger group
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.run(store)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 (it is its caller's, and raised there)
            job.error = error
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
