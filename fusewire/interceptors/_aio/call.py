"""Calls of an asyncio channel with one response, whose failure a fallback may answer."""

# grpcio documents the methods of calls.

from __future__ import annotations

import asyncio
import contextvars
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
from fusewire.interceptors._stage import Stage

if TYPE_CHECKING:
    from collections.abc import Generator

    from fusewire.interceptors._call import GuardedCall

_running: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks weakly


class AioWatchedResponse(AioWatchedCall):
    """The call and then, if it fails, its fallback: over when both are.

    The fallback runs in a task of its own from the moment the call has failed.
    """

    def __init__(self, inner: Any, guarded: GuardedCall) -> None:
        super().__init__(inner, guarded)
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._fallback: asyncio.Task[None] | None = None
        self._message: Any = None  # the fallback's
        self._decided: asyncio.Future[None] | None = None  # done when the stage is not UNDECIDED
        if self._stage is Stage.FAILED:
            self._ask_fallback()
        else:
            when_over(inner, self._inner_ended)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._response().__await__()

    async def _response(self) -> Any:
        try:
            response = await self._inner
        except grpc.RpcError:
            self._decide()
            if self._fallback is None:
                raise
        else:
            self._decide()
            return response
        await self._fallback  # cancelled with the code that awaits it, as the call itself is
        if self._error is not None:
            raise self._error
        return self._message

    def _inner_ended(self, _: Any) -> None:
        """Take note of the inner call's end: a callback, which must not raise."""
        if self._stage is not Stage.IN_FLIGHT:
            return  # grpcio 1.71 calls back at each status that it sets
        if may_change(self._inner):
            self._stage = Stage.UNDECIDED
            self._decided = self._loop.create_future()
            settle_late(self._inner, self._decide)
        else:
            self._conclude()

    def _decide(self, _: Any = None) -> None:
        """Conclude, now that the inner call's status is its last, unless it is done."""
        if self._stage is not Stage.UNDECIDED:
            return
        self._conclude()
        if self._decided is not None and not self._loop.is_closed():
            self._decided.set_result(None)

    def _conclude(self) -> None:
        failed = settle(self._guarded, self._inner)
        if failed and not cancelled_here(self._inner) and not self._loop.is_closed():
            self._ask_fallback()
        else:
            self._guarded.declined()
            self._end(Stage.ENDED)

    def _ask_fallback(self) -> None:
        self._stage = Stage.ASKING
        self._fallback = self._loop.create_task(self._fall_back(), context=self._context)
        _running.add(self._fallback)
        self._fallback.add_done_callback(_running.discard)
        self._fallback.add_done_callback(self._fallback_over)

    async def _fall_back(self) -> None:
        try:
            await self._inner
        except grpc.RpcError as error:
            try:
                self._message = await self._guarded.reply(error)
            except Exception as reason:  # noqa: BLE001 - logged and chained by keep_original()
                self._guarded.keep_original(error, reason)
                self._error = error
                self._end(Stage.ENDED)  # before the code that awaits the task goes on
            else:
                self._guarded.answered(error)
                self._end(Stage.ANSWERED)

    def _fallback_over(self, _: Any = None) -> None:
        """Take note of the end of the task, if it has not: it was cancelled, or did not answer."""
        if not self._stage.over:
            self._guarded.declined()
            cancelled = self._fallback is None or self._fallback.cancelled()
            self._end(Stage.CANCELLED if cancelled else Stage.ENDED)

    async def _wait(self) -> None:
        await self._inner.code()
        if self._decided is not None:
            await asyncio.wait({self._decided})
        if self._fallback is not None:
            await asyncio.wait({self._fallback})
            self._fallback_over()  # its callback may not have been called yet

    def cancel(self) -> bool:
        """Cancel the call, or its fallback."""
        if self._fallback is not None:
            return self._fallback.cancel()
        return bool(self._inner.cancel())


class WatchedUnaryUnary(AioWatchedResponse, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A call with one request."""


class WatchedStreamUnary(AioWatchedResponse, WritesRequests, grpc.aio.StreamUnaryCall[Any, Any]):
    """A call with a stream of requests."""
