"""Calling a user's handler so that it has run to its end, or is known not to have.

A coroutine runs in a task of its own. Whatever its libraries do to the task that they find
themselves in (cancel it and keep that to themselves, cancel it after it has ended), the task that
settles the message never feels it: that one is cancelled by the consumer only.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import logging
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import grpc

from fusewire._validation import is_coroutine_function, name_of
from fusewire.parking._breaker_names import check_handler
from fusewire.parking._errors import HandlerNotRunError, HandlerTimeoutError
from fusewire.parking._overdue import Overdue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.parking._view import MessageView

logger = logging.getLogger("fusewire.parking")

_LOOK = 0.05
"""Seconds between looks at whether a thread that nobody waits for has ended."""

_HEED = 5.0
"""Seconds that a coroutine has to end once it is cancelled, before it is reported."""

_FUTURES = (concurrent.futures.Future, grpc.Future)


class HandlerCalls:
    """Calls one handler, plain or coroutine.

    Args:
        handler: called with the message view; a plain function runs in a worker thread.
        threads: plain handlers that may run at a time.
        timeout: seconds after which a call has failed; None for no such limit.
        warn_after: seconds after which a call is reported as slow, and what then limits it.

    Raises:
        SettingsError: `handler` cannot do its work when it is called.
    """

    def __init__(
        self,
        handler: Callable[[Any], Any],
        *,
        threads: int,
        timeout: float | None,
        warn_after: tuple[float, float],
    ) -> None:
        check_handler("handler", handler, "a message")
        self.handler = handler
        self.name = name_of(handler)
        self.timeout = timeout
        self.warn_after = warn_after
        self.slow = Overdue(warn_after[0], HandlerCall.report_slow)
        self.over = None if timeout is None else Overdue(timeout, HandlerCall.time_is_over)
        self.is_async = is_coroutine_function(handler)
        self._threads = threads
        self._limiter: anyio.CapacityLimiter | None = None

    @property
    def limiter(self) -> anyio.CapacityLimiter:
        """Return what bounds the threads; made on the consumer's event loop."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._threads)
        return self._limiter

    def resize(self, threads: int) -> None:
        """Let another number run at a time. To be called on the event loop, if there is one."""
        self._threads = threads
        if self._limiter is not None:
            self._limiter.total_tokens = threads


class HandlerCall:
    """One call of a handler, for one message.

    Attributes:
        on_loop: whether what runs last, or ran last, is a coroutine on this event loop.
        seconds: how long it took from its first step to its last. That it waited for a turn of the
            event loop before, or for a thread, says nothing of what it called.
    """

    __slots__ = (
        "_calls",
        "_cancelled",
        "_over",
        "_thread",
        "_view",
        "_works",
        "on_loop",
        "seconds",
    )

    def __init__(self, calls: HandlerCalls, view: MessageView) -> None:
        self._calls = calls
        self._view = view
        self._works: Any = None  # a task or a future, which can be cancelled
        self._over = False  # its time is
        self._cancelled = False  # by us, because of that
        self._thread: int | None = None
        self.on_loop = calls.is_async
        self.seconds = 0.0

    async def run(self) -> None:
        """Call the handler, and wait for whatever it returns that has not ended.

        Raises:
            HandlerTimeoutError: its time was over, and it was stopped.
            HandlerNotRunError: it returned something that shows that it has not run.
        """
        calls = self._calls
        calls.slow.begin(self)
        if calls.over is not None:
            calls.over.begin(self)
        try:
            if calls.is_async:
                result = await self._in_task(calls.handler, self._view)
            else:
                result = await self._in_thread()
            if result is not None:
                await self._finish(result)
        finally:
            calls.slow.end(self)
            if calls.over is not None:
                calls.over.end(self)

    async def _finish(self, result: Any) -> None:
        """Wait for what the handler returned, if that has an end; refuse what shows no work."""
        while True:
            if inspect.isawaitable(result):
                self.on_loop = True
                coroutine = result if inspect.iscoroutine(result) else None
                try:
                    result = await self._in_task(_the_same, result)
                finally:
                    if coroutine is not None:  # cancelled before it began, nobody ever awaits it
                        coroutine.close()
            elif isinstance(result, _FUTURES):
                self.on_loop = False
                result = await self._of_future(result)
            else:
                break
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise HandlerNotRunError(
                f"handler {self._calls.name} returned {result!r}, of which nothing has run: take "
                "the yield out of it, or iterate over it in the handler"
            )
        if inspect.isroutine(result) or isinstance(result, functools.partial):
            raise HandlerNotRunError(
                f"handler {self._calls.name} returned {result!r} instead of calling it: a "
                "decorator may lack its parentheses"
            )

    async def _in_thread(self) -> Any:
        end = _End()
        thread = asyncio.create_task(
            anyio.to_thread.run_sync(
                self._work, end, abandon_on_cancel=True, limiter=self._calls.limiter
            )
        )
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError:
            # It cannot be stopped, and its message must not be handled again beside it. What it
            # ends with counts. A second cancellation leaves it alone.
            _forget_cancellation()
            await asyncio.wait({thread})
            if not thread.cancelled():
                await thread
            # Something else may have cancelled the task that waits for the thread.
            while self._thread is not None:  # noqa: ASYNC110 - a thread sets no asyncio.Event
                await asyncio.sleep(_LOOK)
            if not end.came:
                raise
        self.seconds += end.seconds
        if end.error is not None:
            raise end.error
        return end.result

    def _work(self, end: _End) -> None:
        self._thread = threading.get_ident()
        began = time.monotonic()
        try:
            end.result = self._calls.handler(self._view)
        except BaseException as error:  # noqa: BLE001 - raised again where it ends no event loop
            end.error = error
        finally:
            end.seconds = time.monotonic() - began
            end.came = True
            self._thread = None

    async def _in_task(self, function: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
        end = _End()
        task = asyncio.create_task(_contained(function, argument, end), name=self._calls.name)
        self._begin(task)
        try:
            await task
        except asyncio.CancelledError as cancelled:
            if being_cancelled():
                raise
            if self._cancelled:
                raise self._timed_out() from cancelled
            if not end.came:  # else its last step cancelled the task, which has then nothing to end
                raise
        finally:
            self._works = None
            self.seconds += end.seconds
        if end.error is not None:
            raise end.error
        if self._cancelled:
            # It keeps its cancellation to itself: how far it came, nobody knows.
            raise self._timed_out()
        return end.result

    async def _of_future(self, future: Any) -> Any:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def end(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits
                loop.call_soon_threadsafe(ended.set)

        began = time.monotonic()
        future.add_done_callback(end)
        self._begin(future)
        try:
            await ended.wait()
        except asyncio.CancelledError:
            if future.cancel() or future.done():
                raise
            _forget_cancellation()  # as of a plain function
            await ended.wait()
        finally:
            self._works = None
            self.seconds += time.monotonic() - began
        if self._cancelled and future.cancelled():
            raise self._timed_out()
        return future.result()

    def _begin(self, works: Any) -> None:
        self._works = works
        if self._over:
            self.time_is_over()

    def time_is_over(self) -> None:
        """End it, if that can be done; else report it."""
        self._over = True
        works = self._works
        if works is None:
            self._report_stuck("is a plain function, which cannot be stopped")
        elif not isinstance(works, asyncio.Task):
            self._cancelled = True
            if not works.cancel() and not works.done():
                self._report_stuck("cannot be stopped")
        elif works.cancel():
            self._cancelled = True
            loop = asyncio.get_running_loop()
            late = loop.call_later(_HEED, self._report_stuck, "does not heed its cancellation")
            works.add_done_callback(lambda _: late.cancel())

    def _timed_out(self) -> HandlerTimeoutError:
        return HandlerTimeoutError(
            f"handler {self._calls.name} did not end within {self._calls.timeout:g} s "
            "(handler_timeout)"
        )

    def _report_stuck(self, why: str) -> None:
        logger.error(
            "handler %s did not end within %g s (handler_timeout) and %s: its message and its "
            "place stay taken until it ends%s",
            self._calls.name,
            self._calls.timeout,
            why,
            self._where(),
        )

    def report_slow(self) -> None:
        """Log that it is slow, and where its thread is."""
        after, limit = self._calls.warn_after
        logger.warning(
            "handler %s has worked on a message for %g s. Beyond %g s a message may be delivered "
            "again while its handler still works, and what it has done cannot be acknowledged: do "
            "less in it, or set handler_timeout%s",
            self._calls.name,
            after,
            limit,
            self._where(),
        )

    def _where(self) -> str:
        """Return where its thread is just now, if it has one."""
        frame = None if self._thread is None else sys._current_frames().get(self._thread)  # noqa: SLF001 - documented, in spite of its name
        return "" if frame is None else "\n" + "".join(traceback.format_stack(frame))


@dataclass(slots=True)
class _End:
    """How a handler has ended, as far as that is not raised."""

    came: bool = False
    result: Any = None
    error: BaseException | None = None
    seconds: float = 0.0


async def _contained(function: Callable[[Any], Awaitable[Any]], argument: Any, end: _End) -> None:
    """Await `function(argument)`; note what would end the event loop, instead of raising it."""
    began = time.monotonic()
    try:
        end.result = await function(argument)
    except (SystemExit, KeyboardInterrupt) as error:
        end.error = error
    finally:
        end.seconds = time.monotonic() - began
    end.came = True


def _the_same(awaitable: Awaitable[Any]) -> Awaitable[Any]:
    return awaitable


def being_cancelled() -> bool:
    """Return whether this task was cancelled; only the consumer knows the task that settles."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _forget_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
