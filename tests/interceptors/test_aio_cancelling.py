"""Cancelling unary calls on an asyncio channel, in the ways there are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import Classification, aio_interceptors
from tests.support.grpc_calls import until
from tests.support.grpc_server import ECHO, ask

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry
    from tests.support.grpc_server import EchoServer

pytestmark = pytest.mark.usefixtures("one_loop")

OK, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED
FALLBACKS = pytest.mark.parametrize("fallbacks", [None, {"*": b"instead"}])


def guarded_channel(target: str, registry: WatchedRegistry, **options: Any) -> Any:
    interceptors = aio_interceptors(registry=registry, **options)
    return grpc.aio.insecure_channel(target, interceptors=interceptors)


async def _by_call(call: Any) -> None:
    assert call.cancel()


async def _by_task(call: Any) -> None:
    waiting = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def _by_wait_for(call: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 0.05)


async def _in_group(call: Any) -> None:
    async def fail() -> None:
        raise LookupError

    async def wait() -> None:
        await call

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            await asyncio.sleep(0)
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await both()


CANCELS = pytest.mark.parametrize("cancel", [_by_call, _by_task, _by_wait_for, _in_group])


@FALLBACKS
@CANCELS
async def test_cancelling_reaches_the_server_and_does_not_count(
    server: EchoServer,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    fallbacks: Any,
    cancel: Any,
) -> None:
    async with guarded_channel(server.target, registry, fallbacks=fallbacks) as channel:
        before = server.seen()
        call = channel.unary_unary(ECHO)(ask(delay=20))
        called = []
        call.add_done_callback(called.append)
        await until(lambda: server.seen()["begun"] == before["begun"] + 1, "the call's begin")
        await cancel(call)
        await until(lambda: server.seen()["cancelled"] == before["cancelled"] + 1, "the cancel")
        assert call.cancelled()
        assert call.done()
        assert called == [call]
        assert await call.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(asyncio.CancelledError):
            await call
    assert breaker.outcomes == [IGNORED]
    assert breaker.every_permit_settled_once()


@FALLBACKS
@CANCELS
async def test_cancelling_at_once_does_not_count(
    server: EchoServer,
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    fallbacks: Any,
    cancel: Any,
) -> None:
    async with guarded_channel(server.target, registry, fallbacks=fallbacks) as channel:
        call = channel.unary_unary(ECHO)(ask(delay=20))
        await cancel(call)
        await until(call.done, "the call's end")
        await until(breaker.every_permit_settled_once, "the permit")
        assert set(breaker.outcomes) <= {IGNORED}
        assert call.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_wait_for_that_hides_a_hung_server_can_count_as_its_failure(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker
) -> None:
    classify = Classification(max_wait=0.05)
    async with guarded_channel(server.target, registry, classify=classify) as channel:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.unary_unary(ECHO)(ask(delay=20)), 0.1)
        await until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == [FAILURE]
