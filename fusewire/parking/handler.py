"""One attempt: the user's handler, called once, and what came of it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio.to_thread

from fusewire.errors import CircuitOpenError, FusewireError, SettingsError
from fusewire.operation import operation, without_fallbacks
from fusewire.parking.errors import INSTRUCTIONS
from fusewire.parking.policy import rejection_in
from fusewire.parking.record import KEYS_BY_REQUEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.breaker import BreakerRegistry
    from fusewire.operation import Operation
    from fusewire.parking.record import Record
    from fusewire.parking.view import MessageView

    Handler: TypeAlias = Callable[[AbstractIncomingMessage], Awaitable[Any] | Any]


_log = logging.getLogger(__name__)


class RedeliveryWantedError(FusewireError):
    """The handler gave the message back with ``requeue=True``; counted as a failed attempt."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one call of the handler.

    Attributes:
        error: what it raised, or None.
        rejection: the circuit's refusal that the error comes from; then it was not an attempt.
        blame: breakers whose calls were made and failed, in order.
        unwanted: the handler rejected the message itself, without asking for it again.
        because: what it had caught when it did, or None.
        doubtful_keys: idempotency keys that the next attempt is to send again; after the last one,
            those of earlier attempts that it did not send.
    """

    error: BaseException | None = None
    rejection: CircuitOpenError | None = None
    blame: tuple[str, ...] = ()
    unwanted: bool = False
    because: BaseException | None = None
    doubtful_keys: tuple[str, ...] = ()


class HandlerRunner:
    """Calls a handler, plain or coroutine, in the scope of an operation.

    Args:
        handler: called with the message view; a plain function runs in a worker thread.
        guard_with: name of the breaker whose permit is taken around the handler, for handlers whose
            calls are not guarded themselves.
        registry: where that breaker is.
        unrecoverable: tells of an error whether it is the message's own fault.
        threads: plain handlers that may run at a time.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        guard_with: str | None,
        registry: BreakerRegistry,
        unrecoverable: Callable[[BaseException], bool],
        threads: int,
    ) -> None:
        if not callable(handler):
            raise SettingsError(f"handler={handler!r}: give a function that takes a message")
        self._handler = handler
        self._is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object whose call is a coroutine
        )
        self._guard = guard_with
        self._registry = registry
        self._unrecoverable = unrecoverable
        self._threads = threads
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, view: MessageView, record: Record) -> Attempt:
        """Call the handler once.

        For what was parked before, fallbacks are suppressed: only real work settles it, also when
        it comes back by way of a delay.
        """
        fallbacks = without_fallbacks() if record.times_parked else nullcontext()
        with _operation_of(record) as work, fallbacks:
            try:
                await self._guarded(view)
            except asyncio.CancelledError as error:
                # grpc.aio raises it from a call that was cancelled or whose channel was closed,
                # too.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                view.failure = error
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is judged and recorded
                view.failure = error
            finally:
                view.over = True
        if (task := asyncio.current_task()) is not None and task.cancelling():
            # It was cut off and keeps that to itself: how far it came, nobody knows.
            raise asyncio.CancelledError
        attempt = _attempt(view, tuple(work.failed))
        return replace(attempt, doubtful_keys=_doubtful_keys(attempt, work, record))

    async def _guarded(self, view: MessageView) -> None:
        if self._guard is None:
            await self._call(view)
            return
        breaker = self._registry.get(self._guard)
        permit = breaker.acquire()
        try:
            await self._call(view)
            if view.failure is not None:  # raised within process(), and swallowed further out
                raise view.failure  # noqa: TRY301 - judged like any other, just below
        except BaseException as error:
            if isinstance(error, INSTRUCTIONS) or self._unrecoverable(error):
                permit.release()  # it is about the message, and no sign of trouble
            else:
                permit.settle(breaker.judge(error))
            raise
        if not view.rejected:
            permit.success()
        elif view.requeued and view.because is not None:
            permit.settle(breaker.judge(view.because))
        else:
            permit.release()

    async def _call(self, view: MessageView) -> None:
        if self._is_async:
            await self._handler(view)
            return
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._threads)
        result = await anyio.to_thread.run_sync(
            self._handler, view, abandon_on_cancel=True, limiter=self._limiter
        )
        if inspect.isawaitable(result):  # a lambda or a wrapper around a coroutine function
            await result


def _operation_of(record: Record) -> operation:
    return operation(record.operation_id, keys_by_ordinal=record.key_scheme < KEYS_BY_REQUEST)


def _doubtful_keys(attempt: Attempt, work: Operation, record: Record) -> tuple[str, ...]:
    unsent = [key for key in record.doubtful_keys.split() if not work.has_sent(key)]
    if attempt.error is None and not attempt.unwanted:
        return tuple(unsent)
    return tuple(dict.fromkeys([*unsent, *work.doubtful_keys]))


def _attempt(view: MessageView, blame: tuple[str, ...]) -> Attempt:
    error = view.failure
    if error is not None and view.explicit:
        # It said what is to become of the message, and failed at something else afterwards.
        _log.error("a handler raised after it had settled its message", exc_info=error)
        error = None
    if view.rejected and view.requeued:
        error = RedeliveryWantedError("the handler asked for the message again")
        error.__cause__ = view.because
    if error is None:
        return Attempt(blame=blame, unwanted=view.rejected, because=view.because)
    rejection = rejection_in(error)
    if isinstance(error, INSTRUCTIONS) or (rejection is not None and rejection.name in blame):
        rejection = None  # an instruction; or a call was made and failed before the refusal
    return Attempt(error, rejection, blame)
