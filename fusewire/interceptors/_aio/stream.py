"""Response streams of an asyncio channel that are looked into: for a fallback, or a first message.

A stream that needs neither is the inner channel's own call, which only tells its end.
"""

# The methods of calls do what grpcio says of them.

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.interceptors._aio.completion import (
    CANCELLED_DETAILS,
    cancelled_here,
    channel_of,
    may_change,
    settle,
    settle_late,
    when_over,
)
from fusewire.interceptors._aio.rejected import AioUnsentCall
from fusewire.interceptors._fallback import FALLBACK_METADATA, as_messages
from fusewire.interceptors._methods import checked_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fusewire.interceptors._call import GuardedCall

logger = logging.getLogger(__name__)


class GuardedStream(grpc.aio.Call):
    """A response stream under guard, of a call with one request or with many.

    If the call fails before its first message, a fallback may give the messages. It is asked in the
    task that reads.

    Args:
        inner: the call; one that is rejected has ended already.
        guarded: what is known of it.
        request: the request message, or the iterator of them.
    """

    def __init__(self, inner: Any, guarded: GuardedCall, request: Any) -> None:
        self._inner = inner
        self._guarded = guarded
        self._request = request
        self._messages: AsyncIterator[Any] | None = None
        self._begun = False  # a message has been given
        self._answers: bool | None = None  # whether the fallback does; None while it is not known
        self._error: grpc.RpcError | None = None  # what is left when the fallback fails, too
        self._undecided = False  # the inner stream has ended, and its status may change
        self._cancelled = False  # while a fallback was read
        self._over = False
        self._callbacks: list[Callable[[Any], None]] = []
        if isinstance(inner, AioUnsentCall):
            self._answers = True
        else:
            when_over(inner, self._inner_ended)

    @property
    def _channel(self) -> Any:
        return channel_of(self._inner)

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._messages is None:
            self._messages = self._read_all()
        return self._messages

    async def read(self) -> Any:
        try:
            return await anext(self.__aiter__())
        except StopAsyncIteration:
            if self._cancelled or cancelled_here(self._inner):
                raise asyncio.CancelledError from None  # at each read, as grpcio does
            return grpc.aio.EOF

    async def _read_all(self) -> AsyncIterator[Any]:
        try:
            async for message in self._inner:
                if not self._begun:
                    self._begun = True
                    self._guarded.first_message()
                yield message
        except grpc.aio.AioRpcError as error:
            self._decide()
            if not self._conclude():
                raise
            if self._begun:  # it ended, by its callback, before its messages were read
                self._answers = False
                self._end()
                raise
            failure = error
        else:
            self._decide()
            return
        try:
            async for message in self._ask_fallback(failure):
                yield message
        except asyncio.CancelledError:
            self._cancelled = True  # who gives up a read gives up the call (_read in grpcio)
            raise
        except Exception as reason:
            self._guarded.keep_original(failure, reason)
            self._answers, self._error = False, failure
            raise failure from reason
        finally:
            self._guarded.declined()
            self._end()

    async def _ask_fallback(self, error: grpc.RpcError) -> AsyncIterator[Any]:
        fallback, info = self._guarded.fallback, self._guarded.info
        if fallback is None or info is None:
            raise error
        messages = as_messages(await fallback.reply(info, self._request, error))

        def checked(message: Any) -> Any:
            checked_message(info.method, message)
            self._guarded.answered(error)  # whether or not the reader wants the others
            return message

        if isinstance(messages, AsyncIterable):
            async for message in messages:
                yield checked(message)
        else:
            for message in messages:
                yield checked(message)
        self._guarded.answered(error)

    def _conclude(self) -> bool:
        """Settle by how the inner stream ended; tell whether the fallback is to answer."""
        if self._answers is None:
            failed = settle(self._guarded, self._inner)
            self._answers = failed and not self._begun and not cancelled_here(self._inner)
            if not self._answers:
                self._guarded.declined()
        return self._answers

    def _inner_ended(self, _: Any) -> None:
        """Take note of the inner stream's end: a callback, which must not raise."""
        if self._answers is None and may_change(self._inner):
            if not self._undecided:  # grpcio 1.71 calls back at each status that it sets
                self._undecided = True
                settle_late(self._inner, self._decide)
            if self._begun or self._guarded.fallback is None:
                self._end()
        elif not self._conclude():
            self._end()

    def _decide(self, _: Any = None) -> None:
        """Settle, now that the inner stream's status is its last, unless it is done."""
        undecided, self._undecided = self._undecided, False
        if undecided and not self._conclude():
            self._end()

    def _end(self) -> None:
        self._over = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                logger.exception("a done callback raised")

    async def _answered(self) -> bool:
        """Wait for the inner stream's end; tell whether a fallback gives the messages."""
        await self._inner.code()
        if self._answers is None and self._undecided:
            return False
        return self._conclude()

    def cancel(self) -> bool:
        """Cancel the call; a fallback is cancelled with the task that reads it."""
        return bool(self._inner.cancel())

    def cancelled(self) -> bool:
        return self._cancelled or bool(self._inner.cancelled())

    def done(self) -> bool:
        return self._over

    def time_remaining(self) -> float | None:
        left: float | None = self._inner.time_remaining()
        return left

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with this call when it is over."""
        if self._over:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def code(self) -> grpc.StatusCode:
        if await self._answered():
            return grpc.StatusCode.CANCELLED if self._cancelled else grpc.StatusCode.OK
        code: grpc.StatusCode = await self._inner.code()
        return code

    async def details(self) -> str:
        if await self._answered():
            return CANCELLED_DETAILS if self._cancelled else ""
        details: str = await self._inner.details()
        return details

    async def debug_error_string(self) -> str:
        text: str = "" if await self._answered() else await self._inner.debug_error_string()
        return text

    async def initial_metadata(self) -> grpc.aio.Metadata:
        metadata: grpc.aio.Metadata = await self._inner.initial_metadata()
        return metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        if await self._answered():
            if self._cancelled:
                return grpc.aio.Metadata()
            return grpc.aio.Metadata((FALLBACK_METADATA, self._guarded.breaker))
        kept: Any = self._error
        if kept is not None:
            metadata: grpc.aio.Metadata = kept.trailing_metadata()
        else:
            metadata = await self._inner.trailing_metadata()
        return metadata

    async def wait_for_connection(self) -> None:
        """Wait until it is connected, or until a fallback is to answer."""
        try:
            await self._inner.wait_for_connection()
        except grpc.aio.AioRpcError:
            if not await self._answered():
                raise


class GuardedUnaryStream(GuardedStream, grpc.aio.UnaryStreamCall[Any, Any]):
    """The response stream of a call with one request."""


class GuardedStreamStream(GuardedStream, grpc.aio.StreamStreamCall[Any, Any]):
    """The response stream of a call with a stream of requests."""

    @property
    def _done_writing_flag(self) -> bool:
        # grpcio's own wrapper asks the call that an interceptor returned.
        return bool(getattr(self._inner, "_done_writing_flag", False))

    async def write(self, request: Any) -> None:
        await self._inner.write(request)

    async def done_writing(self) -> None:
        await self._inner.done_writing()
