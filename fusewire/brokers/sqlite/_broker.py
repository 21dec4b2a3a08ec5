"""The broker as its users see it: asyncio in front of the worker's thread."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

import anyio

from fusewire._validation import COUNT, SECONDS, check, check_text, invalid
from fusewire.brokers._names import mark_name, queue_name
from fusewire.brokers.protocol import Capabilities
from fusewire.brokers.sqlite._search import withdraw
from fusewire.brokers.sqlite._store import Store
from fusewire.brokers.sqlite._subscription import SQLiteSubscription
from fusewire.brokers.sqlite._worker import Worker
from fusewire.errors import BrokerError, BrokerUnavailableError

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from fusewire.brokers.message import Message
    from fusewire.brokers.protocol import FoundMessage
    from fusewire.brokers.sqlite._receivers import Receiver
    from fusewire.brokers.sqlite._session import Changes
    from fusewire.brokers.topology import Station, Topology

T = TypeVar("T")


class SQLiteBroker:
    """Durable queues in one file, for the processes of one host.

    What is published or moved is on the disk when the call returns. Messages that a process
    holds when it dies come back: at once where the kernel says that it is dead, else when its lease
    ends.

    Args:
        path: the file; made if it is absent. It must lie on a local disk.
        lease: seconds for which a process that gives no sign of life keeps its messages.
        poll_interval: seconds between looks for messages of other processes; those that come
            through this broker are received at once.
        clock: seconds since the epoch, the same for all processes on the file.

    Raises:
        SettingsError: a setting cannot be right.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lease: float = 60.0,
        poll_interval: float = 0.05,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not os.fspath(path):
            raise invalid("path", "the broker's file", path)
        check("lease", lease, SECONDS)
        check("poll_interval", poll_interval, SECONDS)
        if poll_interval > lease / 4:
            raise invalid(
                "poll_interval", f"at most a quarter of the lease, {lease / 4:g} s", poll_interval
            )
        # Absolute, so that a later chdir() means no other file, and ":memory:" no memory.
        self._path = os.path.abspath(os.fspath(path))  # noqa: PTH100 (Path.absolute() keeps "..")
        self._lease = lease
        self._poll_interval = poll_interval
        self._clock = clock
        self._worker: Worker | None = None
        self._subscriptions: dict[Receiver, SQLiteSubscription] = {}

    @property
    def path(self) -> str:
        """The absolute path of the file."""
        return self._path

    def __repr__(self) -> str:
        return f"SQLiteBroker({self._path!r})"

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises:
            BrokerUnavailableError: it cannot be opened or written.
            BrokerError: it is something else than this broker's file, or a newer Fusewire's; or the
                broker is open already.
        """
        if self._worker is not None:
            raise BrokerError(f"{self!r} is open already")
        worker = Worker(
            self._path,
            lease=self._lease,
            poll_interval=self._poll_interval,
            clock=self._clock,
            on_changes=self._apply_changes,
        )
        await worker.open()
        self._worker = worker
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Requeue what is not settled, and close the file."""
        worker = self._worker
        if worker is None:
            return
        # SQLite's calls are bounded by the busy timeout, so this cannot wait forever.
        with anyio.CancelScope(shield=True):
            for subscription in list(self._subscriptions.values()):
                await subscription.release()
            self._worker = None
            await worker.close()

    @property
    def capabilities(self) -> Capabilities:
        """It can do all that there is."""
        return Capabilities(searchable=True, system="sqlite")

    async def prepare(self, topology: Topology) -> None:
        """Make the stations of the source queue; see :meth:`Broker.prepare`."""
        await self._run(partial(Store.prepare, topology=topology))

    async def create_queue(self, queue: str) -> None:
        """Make a queue, if it does not exist yet."""
        check_text("queue", queue)
        await self._run(partial(Store.create_queue, queue=queue))

    async def subscribe(self, station: Station | str, *, prefetch: int) -> SQLiteSubscription:
        """Begin to receive from `station`; see :meth:`Broker.subscribe`."""
        check("prefetch", prefetch, COUNT)
        queue = queue_name(station)
        receiver = await self._run(partial(Store.subscribe, queue=queue))
        subscription = SQLiteSubscription(
            receiver, queue, prefetch=prefetch, submit=self._submit, forget=self._forget
        )
        self._subscriptions[receiver] = subscription
        return subscription

    async def publish(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        """Store `message` durably in `to`; see :meth:`Broker.publish`.

        Raises:
            TypeError: something in it cannot be stored, such as a header that `HeaderValue` does
                not allow; the error says where and what.
        """
        publish = partial(Store.publish, to=to, message=message, delay=delay)
        wakes = None if delay else queue_name(to)
        try:
            # Without a shield, which costs a turn of the event loop: the job runs to its end.
            await self._submit(publish, wakes=wakes, finds_due=False)
        except asyncio.CancelledError:
            with suppress(BrokerError):  # closed
                self._submit(_do_nothing, wakes=wakes)  # a future that is cancelled wakes nobody
            raise

    def publish_from_thread(
        self, to: Station, message: Message, *, heard: Callable[[Exception | None], None]
    ) -> concurrent.futures.Future[None]:
        """Store `message` for a thread that waits, without a turn of the event loop.

        Args:
            to: where it goes.
            message: what is stored.
            heard: called on the event loop soon after it is stored, with None, or with the error.

        Raises:
            BrokerError: the broker is closed, or was opened before a fork.
        """

        def hear(error: BaseException | None) -> None:
            heard(error if isinstance(error, Exception) else None)
            if error is None:
                self._wake_queue(queue_name(to))

        publish = partial(Store.publish, to=to, message=message, delay=0.0)
        return self._opened.submit_from_thread(publish, heard=hear)

    async def depth(self, station: Station | str) -> int:
        """Count the messages that wait; see :meth:`Broker.depth`."""
        return await self._read(partial(Store.depth, station=station))

    async def receivers(self, station: Station | str) -> int:
        """Count the subscriptions of all processes that live; see :meth:`Broker.receivers`."""
        return await self._read(partial(Store.receivers, queue=queue_name(station)))

    async def peek(self, station: Station | str, *, limit: int) -> list[Message]:
        """Read waiting messages, oldest first; see :meth:`Broker.peek`."""
        return await self._read(partial(Store.peek, station=station, limit=max(limit, 0)))

    async def find(self, topology: Topology, message_id: str) -> list[FoundMessage]:
        """Return the messages of an id; see :meth:`SearchableBroker.find`."""
        return await self._read(lambda store: store.search.find(topology, message_id))

    async def withdraw(
        self, found: Sequence[FoundMessage], instead: tuple[Station | str, Message] | None = None
    ) -> bool:
        """Remove messages that nobody has; see :meth:`SearchableBroker.withdraw`."""
        wakes = None if instead is None else queue_name(instead[0])
        return await self._run(partial(withdraw, found=found, instead=instead), wakes=wakes)

    async def mark(self, queue: str, mark: str) -> None:
        """Make an empty queue, as older releases on the same file do."""
        await self._run(partial(Store.create_queue, queue=mark_name(queue, mark)))

    async def unmark(self, queue: str, mark: str) -> None:
        """Delete the queue that is a mark."""
        await self._run(partial(Store.delete_queue, queue=mark_name(queue, mark)))

    async def is_marked(self, queue: str, mark: str) -> bool:
        """Return whether there is the queue that is a mark."""
        return await self._read(partial(Store.has_queue, queue=mark_name(queue, mark)))

    def _submit(
        self, run: Callable[[Store], T], *, wakes: str | None = None, finds_due: bool = True
    ) -> asyncio.Future[T]:
        """Queue a job; when it has succeeded, receivers of the queue `wakes` look at once."""
        future = self._opened.submit(run, finds_due=finds_due)
        if wakes is not None:
            future.add_done_callback(partial(self._wake, wakes))
        return future

    @property
    def _opened(self) -> Worker:
        if self._worker is None:
            raise BrokerError(f"{self!r} is not open: use it in `async with`")
        return self._worker

    async def _run(self, run: Callable[[Store], T], *, wakes: str | None = None) -> T:
        # The shield keeps the future whole when the caller is cancelled: the job runs to its end.
        return await asyncio.shield(self._submit(run, wakes=wakes))

    async def _read(self, run: Callable[[Store], T]) -> T:
        return await asyncio.shield(self._opened.submit(run, reads=True))

    def _wake(self, queue: str, future: asyncio.Future[T]) -> None:
        if not (future.cancelled() or future.exception() is not None):
            self._wake_queue(queue)

    def _wake_queue(self, queue: str) -> None:
        for subscription in self._subscriptions.values():
            if subscription.queue == queue:
                subscription.look_again()

    def _apply_changes(self, changes: Changes) -> None:
        for receiver, why in changes.lost:
            if receiver in self._subscriptions:
                self._subscriptions[receiver].lose(BrokerUnavailableError(why))
        if changes.changed:
            for subscription in self._subscriptions.values():
                subscription.look_again()

    def _forget(self, receiver: Receiver) -> None:
        self._subscriptions.pop(receiver, None)


def _do_nothing(_store: Store) -> None:
    """Run after the jobs that were queued before."""
