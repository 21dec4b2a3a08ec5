"""A fallback above an interceptor that raises errors of its own in place of grpcio's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.interceptors import aio_interceptors
from tests.support.grpc_server import ECHO, ask

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.support.grpc_guard import WatchedRegistry
    from tests.support.grpc_server import EchoServer

pytestmark = pytest.mark.usefixtures("one_loop")


class Translated(grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg] # not subscriptable
    """A call that raises KeyError where grpcio's raises an RpcError."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __await__(self) -> Generator[Any, None, Any]:
        return self._reply().__await__()

    async def _reply(self) -> Any:
        try:
            return await self._inner
        except grpc.RpcError as error:
            raise KeyError("payments") from error

    async def code(self) -> grpc.StatusCode:
        return await self._inner.code()

    async def details(self) -> str:
        return await self._inner.details()

    async def initial_metadata(self) -> Any:
        return await self._inner.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await self._inner.trailing_metadata()

    async def wait_for_connection(self) -> None:
        await self._inner.wait_for_connection()

    def cancel(self) -> bool:
        return bool(self._inner.cancel())

    def cancelled(self) -> bool:
        return bool(self._inner.cancelled())

    def done(self) -> bool:
        return bool(self._inner.done())

    def time_remaining(self) -> Any:
        return self._inner.time_remaining()

    def add_done_callback(self, callback: Any) -> None:
        self._inner.add_done_callback(lambda _: callback(self))


class Translating(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return Translated(await continuation(details, request))


async def test_a_call_whose_error_is_translated_has_failed_and_was_not_cancelled(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    fallbacks = {"*": lambda *_: b"instead"}
    interceptors = [*aio_interceptors(registry=registry, fallbacks=fallbacks), Translating()]
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        call = channel.unary_unary(ECHO)(ask(code="UNAVAILABLE", details="down"))
        with pytest.raises(KeyError):
            await call
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.details() == "down"
        assert not call.cancelled()
