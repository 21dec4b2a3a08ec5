"""Calls of an asyncio channel with one response, whose failure a fallback may answer."""

# The methods of calls do what grpcio says of them.

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any, cast

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
from fusewire.interceptors._fallback import FALLBACK_METADATA

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from fusewire.interceptors._call import GuardedCall

logger = logging.getLogger(__name__)

_running: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks weakly


class _FallbackCall(grpc.aio.Call):
    """The call and then, if it fails, its fallback: over when both are.

    Nothing is awaited here that the user does not await, except the fallback itself, which runs in
    a task of its own from the moment the call has failed.

    Args:
        inner: the call; one that is rejected has ended already.
        guarded: what is known of it.
        request: the request message.
    """

    def __init__(self, inner: Any, guarded: GuardedCall, request: Any) -> None:
        self._inner = inner
        self._guarded = guarded
        self._request = request
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._fallback: asyncio.Task[None] | None = None
        self._replied = False
        self._message: Any = None
        self._error: grpc.RpcError | None = None
        self._undecided: asyncio.Future[None] | None = None  # while the inner status may change
        self._over = False
        self._callbacks: list[Callable[[Any], None]] = []
        when_over(inner, self._inner_ended)

    @property
    def _channel(self) -> Any:
        return channel_of(self._inner)

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
        if self._over or self._fallback is not None or self._undecided is not None:
            return  # grpcio 1.71 calls back at each status that it sets
        if may_change(self._inner):
            self._undecided = self._loop.create_future()
            settle_late(self._inner, self._decide)
        else:
            self._conclude()

    def _decide(self, _: Any = None) -> None:
        """Conclude, now that the inner call's status is its last, unless it is done."""
        undecided, self._undecided = self._undecided, None
        if undecided is None:
            return
        self._conclude()
        if not self._loop.is_closed():
            undecided.set_result(None)

    def _conclude(self) -> None:
        rejected = isinstance(self._inner, AioUnsentCall)
        failed = rejected or settle(self._guarded, self._inner)
        if failed and not cancelled_here(self._inner) and not self._loop.is_closed():
            self._fallback = self._loop.create_task(self._fall_back(), context=self._context)
            _running.add(self._fallback)
            self._fallback.add_done_callback(_running.discard)
            self._fallback.add_done_callback(self._ended)
        else:
            self._ended()

    async def _fall_back(self) -> None:
        guarded = self._guarded
        if guarded.fallback is None or guarded.info is None:
            return
        try:
            await self._inner
        except grpc.RpcError as error:
            try:
                self._message = await guarded.fallback.reply(guarded.info, self._request, error)
                self._replied = True
                guarded.answered(error)
            except Exception as reason:  # noqa: BLE001 - logged and chained by keep_original()
                guarded.keep_original(error, reason)
                self._error = error
            self._ended()  # before the code that awaits the task goes on

    def _ended(self, _: Any = None) -> None:
        self._over = True
        self._guarded.declined()  # nothing is changed by it where the fallback has answered
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                logger.exception("a done callback raised")

    def cancel(self) -> bool:
        """Cancel the call, or its fallback."""
        if self._fallback is not None:
            return self._fallback.cancel()
        return bool(self._inner.cancel())

    def cancelled(self) -> bool:
        if self._fallback is not None:
            return self._fallback.cancelled()
        return bool(self._inner.cancelled())

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

    async def _wait(self) -> None:
        """Wait until it is over, whatever the end."""
        await self._inner.code()
        if self._undecided is not None:
            await asyncio.wait({self._undecided})
        if self._fallback is not None:
            await asyncio.wait({self._fallback})

    async def code(self) -> grpc.StatusCode:
        await self._wait()
        if self._replied:
            return grpc.StatusCode.OK
        if self._fallback is not None and self._fallback.cancelled():
            return grpc.StatusCode.CANCELLED
        code: grpc.StatusCode = await self._inner.code()
        return code

    async def details(self) -> str:
        await self._wait()
        if self._replied:
            return ""
        if self._fallback is not None and self._fallback.cancelled():
            return CANCELLED_DETAILS
        details: str = await self._inner.details()
        return details

    async def debug_error_string(self) -> str:
        await self._wait()
        text: str = "" if self._replied else await self._inner.debug_error_string()
        return text

    async def initial_metadata(self) -> grpc.aio.Metadata:
        metadata: grpc.aio.Metadata = await self._inner.initial_metadata()
        return metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        await self._wait()
        if self._replied:
            return grpc.aio.Metadata((FALLBACK_METADATA, self._guarded.breaker))
        if self._error is not None:
            kept: Any = self._error.trailing_metadata()
            return cast("grpc.aio.Metadata", kept)
        metadata: grpc.aio.Metadata = await self._inner.trailing_metadata()
        return metadata

    async def wait_for_connection(self) -> None:
        """Wait until it is connected, or until a fallback has answered."""
        try:
            await self._inner.wait_for_connection()
        except grpc.aio.AioRpcError:
            await self._wait()
            if not self._replied:
                raise


class FallbackUnaryUnary(_FallbackCall, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A call with one request whose failure a fallback may answer."""


class FallbackStreamUnary(_FallbackCall, grpc.aio.StreamUnaryCall[Any, Any]):
    """The same with a stream of requests. What is written after the failure goes nowhere."""

    @property
    def _done_writing_flag(self) -> bool:
        # grpcio's own wrapper asks the call that an interceptor returned.
        return bool(getattr(self._inner, "_done_writing_flag", False))

    async def write(self, request: Any) -> None:
        await self._inner.write(request)

    async def done_writing(self) -> None:
        await self._inner.done_writing()
