"""Reads of an asyncio stream that its user gives up while a fallback answers it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.interceptors import aio_interceptors
from tests.support.grpc_calls import until
from tests.support.grpc_no_op import aio_no_op
from tests.support.grpc_server import STREAM, EchoServer, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.grpc_guard import WatchedRegistry

pytestmark = pytest.mark.usefixtures("one_loop")

DOWN = ask(code="UNAVAILABLE", messages=0)
HANGS = ask(delay=20)
WAIT = 0.05


async def hanging(_request: object, _error: object) -> AsyncIterator[bytes]:
    yield b"1"
    await asyncio.sleep(20)
    yield b"2"


async def hangs_at_once(_request: object, _error: object) -> Any:
    await asyncio.sleep(20)


async def _by_wait_for(call: Any) -> Any:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call.read(), WAIT)


async def _by_task(call: Any) -> None:
    reading = asyncio.ensure_future(call.read())
    await asyncio.sleep(WAIT)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def _by_iterating(call: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(aiter(call)), WAIT)


async def after(call: Any) -> tuple[Any, ...]:
    """Return all that the user sees of a call that was given up."""
    return (
        await call.read() is grpc.aio.EOF,
        [message async for message in call],
        await call.code(),
        await call.details(),
        tuple(await call.trailing_metadata()),
        call.cancelled(),
        call.done(),
        call.cancel(),
    )


@pytest.mark.parametrize("opened", [False, True], ids=["failed", "rejected"])
@pytest.mark.parametrize("give_up", [_by_wait_for, _by_task, _by_iterating])
@pytest.mark.parametrize("fallback", [hanging, hangs_at_once])
async def test_a_read_of_a_fallback_that_is_given_up_cancels_the_call_as_grpcios_is(
    server: EchoServer, registry: WatchedRegistry, fallback: Any, give_up: Any, opened: Any
) -> None:
    async with grpc.aio.insecure_channel(server.target, interceptors=aio_no_op()) as channel:
        call: Any = channel.unary_stream(STREAM)(HANGS)
        await give_up(call)
        without = await after(call)
    assert grpc.StatusCode.CANCELLED in without

    if opened:
        registry.get(STREAM).open()
    interceptors = aio_interceptors(registry=registry, fallbacks={"*": fallback})
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        call = channel.unary_stream(STREAM)(DOWN)
        ended: list[Any] = []
        call.add_done_callback(ended.append)
        if fallback is hanging:
            assert await call.read() == b"1"
        await give_up(call)
        assert await after(call) == without
        assert ended == [call]


class _Outer(grpc.aio.UnaryStreamClientInterceptor):
    """Keeps the call that it is given."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        self.calls.append(await continuation(details, request))
        return self.calls[-1]


async def test_each_read_after_one_that_was_given_up_is_cancelled_as_a_plain_calls_is(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        plain: Any = channel.unary_stream(STREAM)(HANGS)
        await _by_wait_for(plain)
        with pytest.raises(asyncio.CancelledError):
            await plain.read()

    outer = _Outer()
    interceptors = [outer, *aio_interceptors(registry=registry, fallbacks={"*": hanging})]
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        for order in (DOWN, HANGS):
            held = channel.unary_stream(STREAM)(order)
            await until(lambda: outer.calls, "the call")
            call = outer.calls.pop()
            if order is DOWN:
                assert await call.read() == b"1"
            await _by_wait_for(call)
            for _ in range(2):
                with pytest.raises(asyncio.CancelledError):
                    await call.read()
            assert held.cancelled()


class _EndsEarly(grpc.aio.UnaryStreamClientInterceptor):
    """Returns a call that has reported its end while a message is still unread."""

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        await call.code()
        return _Unread(call)


class _Unread(grpc.aio.UnaryStreamCall[Any, Any]):
    def __init__(self, call: Any) -> None:
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"unread"
        async for message in self._call:
            yield message

    async def read(self) -> Any:
        raise NotImplementedError

    async def code(self) -> Any:
        return await self._call.code()

    async def details(self) -> Any:
        return await self._call.details()

    async def debug_error_string(self) -> Any:
        return await self._call.debug_error_string()

    async def initial_metadata(self) -> Any:
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await self._call.trailing_metadata()

    async def wait_for_connection(self) -> None:
        await self._call.wait_for_connection()

    def cancel(self) -> Any:
        return self._call.cancel()

    def cancelled(self) -> Any:
        return self._call.cancelled()

    def done(self) -> Any:
        return self._call.done()

    def time_remaining(self) -> Any:
        return self._call.time_remaining()

    def add_done_callback(self, callback: Any) -> None:
        self._call.add_done_callback(callback)


async def test_a_stream_that_failed_after_a_message_shows_its_status_and_not_a_fallbacks(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    interceptors = [
        *aio_interceptors(registry=registry, fallbacks={"*": [b"instead"]}),
        _EndsEarly(),
    ]
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        call: Any = channel.unary_stream(STREAM)(DOWN)
        assert await call.read() == b"unread"
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert call.done()
