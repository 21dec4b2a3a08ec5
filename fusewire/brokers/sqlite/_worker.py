"""The thread in which SQLite blocks.

A job is never interrupted: cancelling the task that waits for it only drops its result, so no
transaction is left half done and no connection busy. The thread also renews leases between jobs, so
a handler that blocks the event loop does not lose its messages.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import os
import queue
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from fusewire.brokers.sqlite._forking import User
from fusewire.brokers.sqlite._hearing import Hearing
from fusewire.brokers.sqlite._jobs import Job
from fusewire.brokers.sqlite._session import Changes, Session
from fusewire.errors import BrokerError, UnconfirmedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fusewire.brokers.sqlite._store import Store

T = TypeVar("T")

_Future: TypeAlias = "asyncio.Future[Any] | concurrent.futures.Future[Any]"

_IDLE_LOOK = 0.5  # seconds between looks for the file where nobody receives
_GROUP = 256  # jobs in one commit; more would only make the first of them wait longer

logger = logging.getLogger("fusewire.brokers.sqlite")


class Worker:
    """Runs jobs on one file. Made and used in one event loop.

    Args:
        path: the file.
        lease: seconds of a receiver's lease.
        poll_interval: seconds between looks for what other processes did.
        clock: seconds since the epoch.
        on_changes: called in the event loop when there is any.
    """

    def __init__(
        self,
        path: str,
        *,
        lease: float,
        poll_interval: float,
        clock: Callable[[], float],
        on_changes: Callable[[Changes], None],
    ) -> None:
        self._path = path
        self._lease = lease
        self._poll_interval = poll_interval
        self._clock = clock
        self._on_changes = on_changes
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._queue: queue.SimpleQueue[tuple[Job[Any], _Future] | None] = queue.SimpleQueue()
        self._opened = self._new_future()
        self._closed = self._new_future()
        self._hearing = Hearing(self._loop, self._tell)
        self._ending = False
        self._session: Session | None = None
        self._user = User(self._close_in_child)

    async def open(self) -> None:
        """Start the thread and open the file.

        Raises:
            BrokerError: it cannot be opened; the message says why.
        """
        # A daemon: a process that ends without closing the broker ends; the file bears a kill.
        threading.Thread(target=self._main, name=f"fusewire {self._path}", daemon=True).start()
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            self._queue.put(None)
            raise

    def submit(
        self, run: Callable[[Store], T], *, reads: bool = False, finds_due: bool = True
    ) -> asyncio.Future[T]:
        """Queue a job. When its future is done, its effect is on the disk.

        It runs whatever becomes of the future. It may be run twice; the effect of the first run is
        then undone.

        Args:
            run: the job.
            reads: whether it only reads.
            finds_due: whether it has to find what is due by now.

        Raises:
            BrokerError: closed, or used after a fork.
        """
        future = self._new_future()
        self._put(Job(run, reads, finds_due), future)
        return future

    def submit_from_thread(
        self, run: Callable[[Store], T], *, heard: Callable[[BaseException | None], None]
    ) -> concurrent.futures.Future[T]:
        """Queue a job from any thread, which waits for the file's thread and no other one.

        Args:
            run: the job. It need not find what is due by now.
            heard: called on the event loop soon after it is done, with its error.

        Raises:
            BrokerError: closed, or used after a fork.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        future.add_done_callback(lambda done: self._hearing.add(partial(heard, done.exception())))
        self._put(Job(run, finds_due=False), future)
        return future

    def _put(self, job: Job[Any], future: _Future) -> None:
        if os.getpid() != self._pid:
            raise BrokerError(
                f"{self._path}: this broker was opened before a fork; open one in each process"
            )
        if self._ending:
            raise BrokerError(f"{self._path}: this broker is closed")
        self._queue.put((job, future))

    async def close(self) -> None:
        """End the thread, after the jobs that are queued."""
        if os.getpid() != self._pid:
            return  # the thread is the parent's, and so is the file
        self._ending = True
        self._queue.put(None)
        await asyncio.shield(self._closed)
        self._hearing.end()
        await asyncio.sleep(0)  # so that all is heard before this returns

    def _new_future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        # Nobody may be waiting any more when it fails, and asyncio would report that as a mistake.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    def _close_in_child(self) -> None:
        if self._session is not None:
            self._session.close_in_child()

    def _main(self) -> None:
        try:
            with self._user.inside():
                session = self._session = Session(self._path, self._lease, self._clock)
        except Exception as error:  # noqa: BLE001 (it is raised in `open`)
            self._user.end()
            self._tell(_settle, [(self._opened, None, error)])
            return
        self._tell(_settle, [(self._opened, None, None)])
        try:
            self._work(session)
        finally:
            with self._inside():
                session.close()
            self._user.end()
            self._tell(_settle, [(self._closed, None, None)])

    def _work(self, session: Session) -> None:
        looked = -math.inf
        last = False
        # A loop that was closed without closing the broker: nobody can ask for anything any more.
        while not last and not self._loop.is_closed():
            interval = self._poll_interval if session.has_receivers else _IDLE_LOOK
            group, last = self._next_group(max(0.0, looked + interval - time.monotonic()))
            if time.monotonic() >= looked + interval:
                self._look(session)
                looked = time.monotonic()
            if group:
                self._run(session, [job for job, _ in group])
                self._settle(group)
                with self._inside():
                    session.maintain()

    def _settle(self, group: list[tuple[Job[Any], _Future]]) -> None:
        results = [(future, job.result, job.error) for job, future in group]
        # First those that wait in threads: no event loop has to turn for them.
        _settle([one for one in results if isinstance(one[0], concurrent.futures.Future)])
        if ours := [one for one in results if isinstance(one[0], asyncio.Future)]:
            self._tell(_settle, ours)

    # An unexpected error in the following must not end the thread: everything that
    # is submitted afterwards would wait forever.

    def _look(self, session: Session) -> None:
        with self._inside():
            changes = session.look()
            if changes.changed or changes.lost:
                self._tell(self._on_changes, changes)

    def _run(self, session: Session, jobs: list[Job[Any]]) -> None:
        for job in jobs:
            job.error = UnconfirmedError(
                f"{self._path}: it may or may not have been stored; the log says why"
            )
        with self._inside():
            session.run(jobs)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        try:
            with self._user.inside():
                yield
        except Exception:
            logger.exception("%s: unexpected error; going on", self._path)

    def _next_group(self, timeout: float) -> tuple[list[tuple[Job[Any], _Future]], bool]:
        """Wait for a job; return all that are queued, and whether they are the last."""
        group: list[tuple[Job[Any], _Future]] = []
        try:
            item = self._queue.get(timeout=timeout)
            while item is not None:
                group.append(item)
                if len(group) == _GROUP:
                    return group, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return group, False
        return group, True

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # nobody listens
            logger.debug("%s: the event loop is closed", self._path)


def _settle(results: list[tuple[_Future, object, Exception | None]]) -> None:
    for future, result, error in results:
        if future.done():  # cancelled
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
