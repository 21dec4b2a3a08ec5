"""Response streams of an asyncio channel that are watched: for a fallback, or for a first message.

A stream that needs neither is the inner channel's own call, of which only the end is watched.
"""

# grpcio documents the methods of calls.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.interceptors._aio.completion import (
    cancelled_here,
    may_change,
    settle,
    settle_late,
    when_over,
)
from fusewire.interceptors._aio.watched import AioWatchedCall, WritesRequests
from fusewire.interceptors._fallback import as_messages
from fusewire.interceptors._methods import checked_message
from fusewire.interceptors._stage import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fusewire.interceptors._call import GuardedCall


class AioWatchedStream(AioWatchedCall):
    """A response stream under guard, of a call with one request or with many.

    If the call fails before its first message, a fallback may give the messages. It is asked in the
    task that reads.
    """

    def __init__(self, inner: Any, guarded: GuardedCall) -> None:
        super().__init__(inner, guarded)
        self._messages: AsyncIterator[Any] | None = None
        if self._stage is Stage.IN_FLIGHT:
            when_over(inner, self._inner_ended)

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._messages is None:
            self._messages = self._read_all()
        return self._messages

    async def read(self) -> Any:
        try:
            return await anext(self.__aiter__())
        except StopAsyncIteration:
            if self._stage is Stage.CANCELLED or cancelled_here(self._inner):
                raise asyncio.CancelledError from None  # at each read, as grpcio does
            return grpc.aio.EOF

    async def _read_all(self) -> AsyncIterator[Any]:
        try:
            async for message in self._inner:
                if self._stage in _UNTIL_A_MESSAGE:
                    self._begin()
                yield message
        except grpc.aio.AioRpcError as error:
            self._decide()
            if not self._conclude():
                raise
            failure = error
        else:
            self._decide()
            return
        end = Stage.ANSWERED
        try:
            async for message in self._ask_fallback(failure):
                yield message
        except asyncio.CancelledError:
            end = Stage.CANCELLED  # giving up a read gives up the call (_read in grpcio)
            raise
        except Exception as reason:
            self._guarded.keep_original(failure, reason)
            end, self._error = Stage.ENDED, failure
            raise failure from reason
        finally:
            self._guarded.declined()
            self._end(end)

    def _begin(self) -> None:
        """Take note of the first message: no fallback will be asked."""
        self._guarded.first_message()
        if self._stage is Stage.IN_FLIGHT:
            self._stage = Stage.STREAMING
        elif self._stage is Stage.UNDECIDED:
            self._end(Stage.CLOSING)
        elif self._stage is Stage.FAILED:  # by its callback, before its messages were read
            self._guarded.declined()
            self._end(Stage.ENDED)

    async def _ask_fallback(self, error: grpc.RpcError) -> AsyncIterator[Any]:
        messages = as_messages(await self._guarded.reply(error))

        def checked(message: Any) -> Any:
            checked_message(self._guarded.method, message)
            self._guarded.answered(error)  # whether or not the reader wants the others
            return message

        if isinstance(messages, AsyncIterable):
            async for message in messages:
                yield checked(message)
        else:
            for message in messages:
                yield checked(message)
        self._guarded.answered(error)

    def _inner_ended(self, _: Any) -> None:
        """Take note of the inner stream's end: a callback, which must not raise."""
        if self._stage.settled or not may_change(self._inner):
            self._conclude()
        elif self._stage not in _STATUS_MAY_CHANGE:  # grpcio 1.71 calls back at each status it sets
            if self._stage is Stage.STREAMING or self._guarded.fallback is None:
                self._end(Stage.CLOSING)
            else:
                self._stage = Stage.UNDECIDED
            settle_late(self._inner, self._decide)

    def _decide(self, _: Any = None) -> None:
        """Settle, now that the inner stream's status is its last, unless it is done."""
        if self._stage in _STATUS_MAY_CHANGE:
            self._conclude()

    def _conclude(self) -> bool:
        """Settle by how the inner stream ended; return whether the fallback is to answer."""
        if self._stage.settled:
            return self._stage.answers
        failed = settle(self._guarded, self._inner) and not cancelled_here(self._inner)
        if failed and self._stage in _MAY_FALL_BACK:
            self._stage = Stage.FAILED
            return True
        self._guarded.declined()
        self._end(Stage.ENDED)
        return False

    async def _wait(self) -> None:
        await self._inner.code()
        if self._stage not in _STATUS_MAY_CHANGE:
            self._conclude()

    def cancel(self) -> bool:
        """Cancel the call; a fallback is cancelled with the task that reads it."""
        return bool(self._inner.cancel())


_UNTIL_A_MESSAGE = (Stage.IN_FLIGHT, Stage.UNDECIDED, Stage.CLOSING, Stage.FAILED)
_MAY_FALL_BACK = (Stage.IN_FLIGHT, Stage.UNDECIDED)
_STATUS_MAY_CHANGE = (Stage.UNDECIDED, Stage.CLOSING)


class WatchedUnaryStream(AioWatchedStream, grpc.aio.UnaryStreamCall[Any, Any]):
    """The response stream of a call with one request."""


class WatchedStreamStream(AioWatchedStream, WritesRequests, grpc.aio.StreamStreamCall[Any, Any]):
    """The response stream of a call with a stream of requests."""
