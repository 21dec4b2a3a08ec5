"""What calls of an asyncio channel share that end only when their fallback has answered."""

# grpcio documents the methods of calls.

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fusewire.interceptors._aio.completion import CANCELLED_DETAILS, channel_of
from fusewire.interceptors._aio.rejected import AioUnsentCall
from fusewire.interceptors._done_callbacks import DoneCallbacks
from fusewire.interceptors._fallback import FALLBACK_METADATA
from fusewire.interceptors._stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.interceptors._call import GuardedCall


class AioWatchedCall(grpc.aio.Call):
    """A call that says how the inner call ended, or how its fallback answered.

    Nothing is awaited here that the user does not await, except the fallback.

    Args:
        inner: the call, or one that was never sent, because the circuit rejected it.
        guarded: what is known of it.
    """

    def __init__(self, inner: Any, guarded: GuardedCall) -> None:
        self._inner = inner
        self._guarded = guarded
        self._stage = Stage.FAILED if isinstance(inner, AioUnsentCall) else Stage.IN_FLIGHT
        self._error: grpc.RpcError | None = None  # the call's, once its fallback has failed too
        self._done_callbacks = DoneCallbacks()

    async def _wait(self) -> None:
        """Wait until it is known how the call ended."""
        raise NotImplementedError

    def _end(self, stage: Stage) -> None:
        """Enter `stage`, in which the call is over, and call back."""
        self._stage = stage
        self._done_callbacks.run()

    @property
    def _channel(self) -> Any:
        return channel_of(self._inner)

    def cancelled(self) -> bool:
        if self._stage.answers:
            return self._stage is Stage.CANCELLED
        return bool(self._inner.cancelled())

    def done(self) -> bool:
        return self._stage.over

    def time_remaining(self) -> float | None:
        left: float | None = self._inner.time_remaining()
        return left

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with this call when it is over."""
        if self._stage.over:
            callback(self)
        else:
            self._done_callbacks.add(functools.partial(callback, self))

    async def code(self) -> grpc.StatusCode:
        await self._wait()
        if self._stage is Stage.CANCELLED:
            return grpc.StatusCode.CANCELLED
        if self._stage.answers:
            return grpc.StatusCode.OK
        code: grpc.StatusCode = await self._inner.code()
        return code

    async def details(self) -> str:
        await self._wait()
        if self._stage is Stage.CANCELLED:
            return CANCELLED_DETAILS
        details: str = "" if self._stage.answers else await self._inner.details()
        return details

    async def debug_error_string(self) -> str:
        await self._wait()
        text: str = "" if self._stage.answers else await self._inner.debug_error_string()
        return text

    async def initial_metadata(self) -> grpc.aio.Metadata:
        metadata: grpc.aio.Metadata = await self._inner.initial_metadata()
        return metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        await self._wait()
        if self._stage is Stage.CANCELLED:
            return grpc.aio.Metadata()
        if self._stage.answers:
            return grpc.aio.Metadata((FALLBACK_METADATA, self._guarded.breaker))
        metadata: Any
        if self._error is not None:
            metadata = self._error.trailing_metadata()
        else:
            metadata = await self._inner.trailing_metadata()
        trailing: grpc.aio.Metadata = metadata
        return trailing

    async def wait_for_connection(self) -> None:
        """Wait until it is connected, or until a fallback answers."""
        try:
            await self._inner.wait_for_connection()
        except grpc.aio.AioRpcError:
            await self._wait()
            if not self._stage.answers or self._stage is Stage.CANCELLED:
                raise


class WritesRequests:
    """Writing the requests of a watched call. What is written after its failure goes nowhere."""

    _inner: Any

    @property
    def _done_writing_flag(self) -> bool:
        # grpcio's own wrapper asks the call that an interceptor returned.
        return bool(getattr(self._inner, "_done_writing_flag", False))

    async def write(self, request: Any) -> None:
        await self._inner.write(request)

    async def done_writing(self) -> None:
        await self._inner.done_writing()
