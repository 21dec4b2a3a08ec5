"""The file, opened and opened again: jobs in groups, a group in one transaction.

A commit waits for the disk, so all jobs that wait when a transaction begins share one commit. Each
has a savepoint: one that fails takes nothing with it.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from fusewire._log_fields import fields
from fusewire.brokers.sqlite._database import (
    commits_of_others,
    is_locked,
    may_be_stored,
    translate,
)
from fusewire.brokers.sqlite._jobs import Job, LoneJobError, run_each
from fusewire.brokers.sqlite._openfile import OpenFile
from fusewire.brokers.sqlite._store import lease_lost
from fusewire.errors import BrokerError, BrokerUnavailableError, UnconfirmedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.brokers.sqlite._receivers import Receiver
    from fusewire.brokers.sqlite._store import Queue

T = TypeVar("T")

_OPENINGS = 5  # of a file that is moved again and again, in one transaction

logger = logging.getLogger("fusewire.brokers.sqlite")


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened without a job of ours.

    Attributes:
        changed: another process has committed, or a delay or a lease has ended.
        lost: receivers of ours that hold nothing any more, and why.
    """

    changed: bool
    lost: tuple[tuple[Receiver, str], ...] = ()


class Session:
    """Used by one thread, the one that makes it.

    Before and after each transaction, the file is looked for under its name. One that was moved,
    deleted or replaced is left, and the next job opens what the name leads to then.

    Args:
        path: the file.
        lease: seconds of a receiver's lease; it is renewed every quarter of that.
        clock: seconds since the epoch.

    Raises:
        BrokerError: it cannot be opened.
    """

    def __init__(self, path: str, lease: float, clock: Callable[[], float]) -> None:
        self._path = path
        self._lease = lease
        self._clock = clock
        self._mine: set[Receiver] = set()
        self._orphans: list[tuple[Receiver, str]] = []  # of files that were lost; not reported yet
        self._queues: list[Queue] = []  # of a file that was lost, to be made in the next
        self._renewal_interval = lease / 4
        self._next_renewal = time.monotonic() + self._renewal_interval
        self._untold = False  # something has come back in a transaction of ours
        self._complaint = ""
        self._complained_at = 0.0
        self._file: OpenFile | None = None
        self._seen = commits_of_others(self._current().connection)

    def close_in_child(self) -> None:
        """Close in a forked child what it has inherited; the file stays the parent's."""
        if self._file is not None:
            self._file.close_as_it_is()

    @property
    def has_receivers(self) -> bool:
        """Whether there is something to renew, and a receiver to report to."""
        return bool(self._mine or self._orphans)

    def close(self) -> None:
        """Close the file. Receivers keep their messages until their leases end."""
        file, self._file = self._file, None
        if file is None:
            return
        if file.identity.intact():
            file.close()
            return
        try:
            saved = file.save()
        except BrokerUnavailableError as error:
            logger.error("%s. It held %s messages", error, _number(file.inventory()[0]))  # noqa: TRY400 (it is expected)
            file.close_as_it_is()  # a log that still has its name is read by the next
            return
        if saved:
            self._report_rescue()
        else:
            self._report_loss(file.inventory()[0])
        file.leave()

    def look(self) -> Changes:
        """Look for the file and for what happened meanwhile; renew the leases when it is time."""
        lost: list[Receiver] = []
        changed = False
        try:
            self._leave_if_lost()
            if self._mine:
                lost = self._renew()
                self._release_due()
                changed = self._has_changed()
            self._take_complaint_back()
        except sqlite3.Error as error:
            self._complain(translate(error, self._path))
        except BrokerError as error:
            self._complain(error)
        orphans, self._orphans = self._orphans, []
        expired = [(receiver, lease_lost(self._path)) for receiver in lost]
        return Changes(changed, (*expired, *orphans))

    def run(self, jobs: list[Job[Any]]) -> None:
        """Run `jobs` in order; each then has its result, which is on the disk, or its error."""
        for reads, together in groupby(jobs, key=attrgetter("reads")):
            self._run_together(list(together), reads=reads)

    def _run_together(self, jobs: list[Job[Any]], *, reads: bool) -> None:
        try:
            # First, so that counts and claims find what is due by now.
            if any(job.finds_due for job in jobs):
                with suppress(UnconfirmedError):  # the file is gone, with what came back in it
                    self._release_due()
            self._transact(lambda file: run_each(jobs, file), reads=reads)
        except LoneJobError as failed:
            jobs[0].error = failed.error
        except BrokerError as error:
            for job in jobs:
                job.error = type(error)(str(error))
                job.error.__cause__ = error.__cause__
        except sqlite3.Error as error:
            if len(jobs) > 1 and not is_locked(error):
                # One of them may be the cause (a body too big, say): let it fail alone.
                for job in jobs:
                    self._run_together([job], reads=reads)
                return
            for job in jobs:
                job.error = self._explain(error)

    def maintain(self) -> None:
        """Do what no caller waits for: copy the log back when it has grown."""
        try:
            if self._file is not None and self._file.checkpointer.is_due():
                self._transact(lambda file: file.checkpointer.run())
        except sqlite3.Error as error:
            self._complain(translate(error, self._path))
        except BrokerError as error:
            self._complain(error)

    def _renew(self) -> list[Receiver]:
        if time.monotonic() < self._next_renewal:
            return []
        lost = self._transact(lambda file: file.store.renew())
        self._next_renewal = time.monotonic() + self._renewal_interval
        return lost

    def _release_due(self) -> None:
        if self._current().store.has_due():
            self._transact(lambda file: file.store.release_due())
            self._untold = True

    def _has_changed(self) -> bool:
        seen = commits_of_others(self._current().connection)
        changed = self._untold or seen != self._seen
        self._untold = False
        self._seen = seen
        return changed

    # -- transactions ------------------------------------------------------------------------------

    def _transact(self, run: Callable[[OpenFile], T], *, reads: bool = False) -> T:
        for _ in range(_OPENINGS):
            file = self._begin(reads=reads)
            changes_before = file.connection.total_changes
            result = self._finish(file, run)
            has_written = file.connection.total_changes != changes_before
            try:
                if file.identity.intact() or self._leave(file):
                    return result
            except BrokerUnavailableError:
                if not has_written:
                    raise
            if has_written:
                raise UnconfirmedError(
                    f"{self._path}: the file was moved, deleted or replaced while this was stored; "
                    "it may or may not be found again"
                )
        raise BrokerUnavailableError(_keeps_going_away(self._path))

    def _begin(self, *, reads: bool) -> OpenFile:
        for _ in range(_OPENINGS):
            file = self._current() if self._file is None else self._file
            try:
                # IMMEDIATE: one that begins by reading cannot wait for another that writes.
                file.connection.execute("BEGIN" if reads else "BEGIN IMMEDIATE")
            except sqlite3.Error:
                if file.identity.intact():
                    raise
            else:
                # Not looked at before: while this one may write, no other process can save what
                # this file holds, and leave it.
                if file.identity.intact():
                    return file
                file.connection.execute("ROLLBACK")
            self._leave(file)
        raise BrokerUnavailableError(_keeps_going_away(self._path))

    def _finish(self, file: OpenFile, run: Callable[[OpenFile], T]) -> T:
        mine = set(self._mine)
        try:
            result = run(file)
            file.connection.execute("COMMIT")
        except BaseException:
            if file.connection.in_transaction:  # SQLite itself rolls back after some errors
                file.connection.execute("ROLLBACK")
            self._mine.intersection_update(mine)
            self._mine.update(mine)
            raise
        return result

    # -- the file ----------------------------------------------------------------------------------

    def _current(self) -> OpenFile:
        """Return the file that the name leads to, opened if it is not open yet."""
        self._leave_if_lost()
        if self._file is None:
            self._file = self._open()
            self._queues = []
        return self._file

    def _open(self) -> OpenFile:
        try:
            return OpenFile(self._path, self._lease, self._clock, self._mine, self._queues)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error

    def _leave_if_lost(self) -> None:
        if self._file is not None and not self._file.identity.intact():
            self._leave(self._file)

    def _leave(self, file: OpenFile) -> bool:
        """Close a file that is not found any more; return whether all that it held is.

        Raises:
            BrokerUnavailableError: what it holds would be lost; it stays open.
        """
        saved = file.save()
        count, queues = file.inventory()
        self._untold = True
        self._file = None
        if saved:
            self._file = self._leave_and_return(file)
        else:
            file.leave()
        if self._file is not None:
            self._report_rescue()
            return True
        self._report_loss(count)
        self._queues = queues
        why = f"{self._path}: the file was moved, deleted or replaced while it was open"
        self._orphans.extend((receiver, why) for receiver in self._mine)
        self._mine.clear()
        return False

    def _leave_and_return(self, file: OpenFile) -> OpenFile | None:
        """Leave a file and open it again; return None if the name leads to another by then."""
        try:
            anchor = file.anchor()
        except sqlite3.Error:
            file.leave()
            return None
        with closing(anchor):
            found = file.identity.leads_to_file()
            file.leave()
            if not found:
                return None
            try:
                again = self._open()
            except BrokerError as error:
                self._complain(error)
                return None
        if again.identity.is_same_file(file.identity):
            return again
        again.close()
        return None

    # -- what is logged ----------------------------------------------------------------------------

    def _report_rescue(self) -> None:
        logger.warning(
            "%s: its -wal or -shm was deleted while it was open; what they held was copied "
            "into the file, and nothing is lost. Leave them alone while the file is in use",
            self._path,
        )

    def _report_loss(self, count: int | None) -> None:
        logger.error(
            "%s: the file was moved, deleted or replaced while it was open. It held %s "
            "messages, which are not found under its name now. What the name leads to is "
            "opened instead. To have them handled, put the file back while no process uses it",
            self._path,
            _number(count),
        )

    def _complain(self, error: BrokerError) -> None:
        if str(error) != self._complaint:  # once, and not at each look
            logger.warning(
                "%s; trying again", error, extra=fields("broker.lost", broker=self._path)
            )
        if not self._complaint:
            self._complained_at = time.monotonic()
        self._complaint = str(error)

    def _take_complaint_back(self) -> None:
        if self._complaint:
            self._complaint = ""
            seconds = time.monotonic() - self._complained_at
            logger.info(
                "%s can be used again after %.1f s",
                self._path,
                seconds,
                extra=fields("broker.back", broker=self._path, seconds=round(seconds, 3)),
            )

    def _explain(self, error: sqlite3.Error) -> BrokerError:
        explained = translate(error, self._path)
        if may_be_stored(error):
            explained = UnconfirmedError(f"{explained}; it may or may not have been stored")
        explained.__cause__ = error
        return explained


def _number(count: int | None) -> str:
    return "an unknown number of" if count is None else str(count)


def _keeps_going_away(path: str) -> str:
    return f"{path}: the file is moved, deleted or replaced again and again; nothing was stored"
