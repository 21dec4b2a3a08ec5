"""What a rejection is on an asyncio channel: the error, and a call that was never sent."""

# grpcio documents the methods of calls.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from fusewire.interceptors._rejection import Rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class AioRejectedCall(Rejection, grpc.aio.AioRpcError):
    """The circuit did not admit a call on an asyncio channel."""

    def initial_metadata(self) -> grpc.aio.Metadata:
        """Return no metadata: nothing came from a server."""
        return grpc.aio.Metadata()

    def trailing_metadata(self) -> grpc.aio.Metadata:  # type: ignore[override] # as grpcio itself does
        """Return when to come back, as pushback and as RetryInfo."""
        return grpc.aio.Metadata(*self._pairs())


class AioUnsentCall(grpc.aio.UnaryUnaryCall[Any, Any]):
    """A call that the circuit rejected, for its fallback to answer.

    It serves calls of all shapes, with what their wrappers ask of it.
    """

    _channel = None  # see channel_of

    def __init__(self, error: AioRejectedCall) -> None:
        self._error = error

    def __await__(self) -> Generator[None, None, Any]:
        yield from ()
        raise self._error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        raise self._error

    async def code(self) -> grpc.StatusCode:
        return self._error.code()

    async def details(self) -> str:
        return self._error.details()

    async def debug_error_string(self) -> str:
        return self._error.debug_error_string()

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return self._error.initial_metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return self._error.trailing_metadata()

    async def wait_for_connection(self) -> None:
        raise self._error

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def time_remaining(self) -> float | None:
        return None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)
