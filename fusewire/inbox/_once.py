"""What users wrap their handlers in."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from fusewire._validation import (
    SECONDS,
    Rule,
    check,
    check_callable,
    check_plain_function,
    instance_of,
    is_coroutine_function,
    name_of,
)
from fusewire.idempotency.internal import (
    KEEP,
    WEEK,
    AioPerforming,
    AioStore,
    Handle,
    Performing,
    SyncStore,
    aio_sweep_batches,
    enter,
    leave,
    sweep_batches,
)
from fusewire.inbox._sequence import HandlerEnd, Inbox, end_of, take_back_ack
from fusewire.parking import HandlerNotRunError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.idempotency.internal import AioTransaction, Step, Transaction

T = TypeVar("T")

_LONGEST_NAME = 200
"""Bytes of a consumer's name: with a key of 512 characters it fits into PostgreSQL's index."""

_NAME = Rule(
    f"a non-empty string of at most {_LONGEST_NAME} bytes without NUL",
    lambda value: (
        isinstance(value, str)
        and "\0" not in value
        and 0 < len(value.encode(errors="surrogatepass")) <= _LONGEST_NAME
    ),
)
_COROUTINE_FUNCTION = Rule("a coroutine function", is_coroutine_function)
_FUTURES = (concurrent.futures.Future, grpc.Future)


def once(
    store: SyncStore,
    handler: Callable[[AbstractIncomingMessage], Any],
    *,
    consumer: str,
    keep: float = WEEK,
    wait: float = 1.0,
    sweep: float | None = 60.0,
) -> Callable[[AbstractIncomingMessage], None]:
    """Wrap a plain handler so that each message's work is done once.

    The message's operation id is claimed before the handler runs, in the transaction that the
    handler works in: ``store.current()``. Both are committed together when the handler returns, and
    then the message is acknowledged. One that comes again is acknowledged at once. Whatever else a
    handler does (it raises, it rejects its message, it is killed) rolls its work back, nothing is
    remembered, and the consumer does with the message what it always does.

    A message without an operation id of its own is dead as ``key-missing``. One whose operation id
    was used for another body is dead as ``key-reused``. While another consumer of the name has the
    message, it is postponed, which is no attempt.

    Args:
        store: where messages are remembered: the database of the handler's work.
        handler: called with the message, in a worker thread. All its work has ended when it
            returns.
        consumer: whose memory it is. Consumers of two queues have two names, so a message that is
            in both is handled in both. It is stored: another name is another memory.
        keep: seconds for which a message is remembered, at least an hour. A copy that comes later
            is handled again, so it is longer than any message waits.
        wait: seconds that a message waits for another one with its operation id, or for SQLite's
            lock, before it is postponed.
        sweep: seconds between deletions of expired records, in small batches, beside a message.
            None leaves that to you: see the store's `sweep`.

    Returns:
        the handler to give to a :class:`~fusewire.parking.ParkingConsumer`.

    Raises:
        SettingsError: a setting cannot be right.
        MissingTableError: the store's table is not there; the message has its DDL.
        Exception: whatever the driver raises if the database cannot be reached.
    """
    check("store", store, instance_of(SyncStore))
    check_plain_function("handler", handler, "a message")
    inbox = _inbox(store, consumer, keep=keep, wait=wait, sweep=sweep)
    store.check_table()

    @functools.wraps(handler, updated=())
    def handle(message: AbstractIncomingMessage) -> None:
        try:
            _Handling(store, inbox, wait, handler, message).run(inbox.steps(message))
        except BaseException:
            take_back_ack(message)
            raise
        if inbox.sweep_due.now():
            sweeping = functools.partial(_sweep, store, inbox)
            threading.Thread(target=sweeping, name="fusewire-sweep", daemon=True).start()

    return handle


async def aio_once(
    store: AioStore,
    handler: Callable[[AbstractIncomingMessage], Awaitable[Any]],
    *,
    consumer: str,
    keep: float = WEEK,
    wait: float = 1.0,
    sweep: float | None = 60.0,
) -> Callable[[AbstractIncomingMessage], Coroutine[Any, Any, None]]:
    """Wrap a coroutine function so that each message's work is done once.

    The same as :func:`once` for asyncio: see there for the arguments, and for what it raises.
    """
    check("store", store, instance_of(AioStore))
    check_callable("handler", handler, "a message")
    check("handler", handler, _COROUTINE_FUNCTION)
    inbox = _inbox(store, consumer, keep=keep, wait=wait, sweep=sweep)
    await store.check_table()
    sweeps: set[asyncio.Task[None]] = set()

    @functools.wraps(handler, updated=())
    async def handle(message: AbstractIncomingMessage) -> None:
        try:
            await _AioHandling(store, inbox, wait, handler, message).run(inbox.steps(message))
        except BaseException:
            take_back_ack(message)
            raise
        if inbox.sweep_due.now():
            sweeping = asyncio.create_task(_aio_sweep(store, inbox))
            sweeps.add(sweeping)
            sweeping.add_done_callback(sweeps.discard)

    return handle


def _inbox(
    store: SyncStore | AioStore, consumer: str, *, keep: float, wait: float, sweep: float | None
) -> Inbox:
    check("consumer", consumer, _NAME)
    check("keep", keep, KEEP)
    check("wait", wait, SECONDS)
    check("sweep", sweep, SECONDS.or_none)
    return Inbox(store, consumer, keep=keep, wait=wait, sweep=sweep)


class _Handling(Performing):
    """Performs the steps of one message."""

    def __init__(
        self,
        store: SyncStore,
        inbox: Inbox,
        wait: float,
        handler: Callable[[AbstractIncomingMessage], Any],
        message: AbstractIncomingMessage,
    ) -> None:
        super().__init__(store, wait)
        self._inbox = inbox
        self._handler = handler
        self._message = message
        self._lender = store

    def perform(self, step: Step) -> Any:
        """Do what a step says, and return what it is answered with."""
        if isinstance(step, Handle) and self.transaction is not None:
            return self._handle(self.transaction)
        return super().perform(step)

    def _handle(self, transaction: Transaction) -> HandlerEnd:
        entering = enter(self._inbox.method, self._lender, transaction.lend())
        try:
            _check_ended(self._handler, self._handler(self._message))
            if not entering.entered.asked:
                self._inbox.warn_unasked()
        finally:
            leave(entering)
        end = end_of(self._message, is_open=transaction.is_open)
        if end is HandlerEnd.DONE:
            transaction.settle()
        return end


class _AioHandling(AioPerforming):
    """Performs the steps of one message, for asyncio.

    A consumer cancels a handler that takes too long. The handler ends then; what the database is
    just asked goes on to its end, or a connection would go back to its pool in the middle of it.
    """

    def __init__(
        self,
        store: AioStore,
        inbox: Inbox,
        wait: float,
        handler: Callable[[AbstractIncomingMessage], Awaitable[Any]],
        message: AbstractIncomingMessage,
    ) -> None:
        super().__init__(store, wait)
        self._inbox = inbox
        self._handler = handler
        self._message = message
        self._lender = store

    async def perform(self, step: Step) -> Any:
        """Do what a step says, and return what it is answered with."""
        if isinstance(step, Handle) and self.transaction is not None:
            return await self._handle(self.transaction)
        return await _to_its_end(super().perform(step))

    async def _end(self) -> None:
        await _to_its_end(super()._end())

    async def _handle(self, transaction: AioTransaction) -> HandlerEnd:
        entering = enter(self._inbox.method, self._lender, transaction.lend())
        try:
            _check_ended(self._handler, await self._handler(self._message))
            if not entering.entered.asked:
                self._inbox.warn_unasked()
        finally:
            leave(entering)
        end = end_of(self._message, is_open=transaction.is_open)
        if end is HandlerEnd.DONE:
            await _to_its_end(transaction.settle())
        return end


async def _to_its_end(step: Coroutine[Any, Any, T]) -> T:
    """Await `step`; if this task is cancelled meanwhile, be cancelled after its end."""
    task = asyncio.create_task(step)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # looked at, or asyncio logs it
    raise cancelled


def _check_ended(handler: object, result: object) -> None:
    """Refuse what shows that a handler's work has not ended with it.

    Raises:
        HandlerNotRunError: it has not.
    """
    unended = (
        inspect.isawaitable(result)
        or inspect.isgenerator(result)
        or inspect.isasyncgen(result)
        or inspect.isroutine(result)
        or isinstance(result, (*_FUTURES, functools.partial))
    )
    if not unended:
        return
    if inspect.iscoroutine(result):
        result.close()
    raise HandlerNotRunError(
        f"handler {name_of(handler)} returned {result!r}, which has not ended: all work in "
        "store.current() ends before the handler does, so wait for it there"
    )


def _sweep(store: SyncStore, inbox: Inbox) -> None:
    try:
        sweep_batches(store)
    except Exception as error:  # noqa: BLE001 - any driver's; the next sweep tries again
        inbox.log_sweep(error)


async def _aio_sweep(store: AioStore, inbox: Inbox) -> None:
    try:
        await aio_sweep_batches(store)
    except Exception as error:  # noqa: BLE001 - as above
        inbox.log_sweep(error)
