"""Many calls of every way, abandoned ones too, leave nothing behind that grpcio alone would not."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_no_op import aio_no_op
from tests.support.grpc_server import EchoServer, ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from collections.abc import Callable

# Memory under a busy machine is measured too coarsely to decide whether a change goes in.
pytestmark = pytest.mark.long

GUARDS: tuple[dict[str, Any], ...] = (
    {},
    {"fallbacks": {"*": b"m"}},
    {"streams": "first_message"},
)
CALLS = pytest.mark.parametrize(
    ("calls", "options"),
    [(40, {}), *(pytest.param(10_000, one, marks=pytest.mark.long) for one in GUARDS)],
    ids=["short", "long", "long with fallbacks", "long by first message"],
)
PER_CALL = 24.0  # bytes that memory may grow by call; one object that is left behind is more
ORDER = ask(messages=2)


def grown(make_calls: Callable[[int], None], calls: int) -> float:
    """Tell by how many bytes the memory of Python objects grows with each call."""
    make_calls(max(calls // 4, 20))  # what is made once is made
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        make_calls(calls)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / calls
    finally:
        tracemalloc.stop()


def _breakers() -> BreakerRegistry:
    # One place for probes: a permit that is left behind would keep the next call out.
    return BreakerRegistry(
        BreakerSettings(failure_threshold=1, recovery_timeout=0.001, half_open_max_calls=1)
    )


def _make(way: Way, channel: Any, *, abandoned: bool) -> None:
    if not abandoned:
        finish(way, channel, ORDER)
        return
    call = way.make(channel, ORDER)
    if way.streams:
        next(call)
    del call


@CALLS
@pytest.mark.timeout(600)
@pytest.mark.parametrize("abandoned", [False, True], ids=["read", "abandoned"])
@pytest.mark.parametrize(
    "way", [way for way in SYNC_WAYS if way.style in ("call", "future", "iterate")], ids=str
)
def test_sync_calls_leave_nothing_behind(
    way: Way,
    abandoned: bool,  # noqa: FBT001 - a parameter of the test
    options: dict[str, Any],
    calls: int,
    server: EchoServer,
) -> None:
    if abandoned and way.blocks:
        pytest.skip("a call that blocks cannot be abandoned")

    def measured(channel: Any) -> float:
        def make_calls(number: int) -> None:
            for _ in range(number):
                _make(way, channel, abandoned=abandoned)

        return grown(make_calls, calls)

    with grpc.insecure_channel(server.target) as channel:
        alone = measured(channel)
    breakers = _breakers()
    channel = grpc.insecure_channel(server.target)
    with guard(channel, registry=breakers, **options) as guarded:
        threads = threading.active_count()
        assert measured(guarded) < max(alone, 0.0) + PER_CALL * max(1, 1000 / calls)
        wait_until(lambda: threading.active_count() <= threads + 1, "the threads' end")
        _assert_no_permit_is_left(breakers, way)


@CALLS
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_asyncio_calls_leave_nothing_behind(
    way: Way, options: dict[str, Any], calls: int, server: EchoServer
) -> None:
    async def measured(channel: Any) -> float:
        await _aio_make(way, channel, max(calls // 4, 20))
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            await _aio_make(way, channel, calls)
            gc.collect()
            return (tracemalloc.get_traced_memory()[0] - before) / calls
        finally:
            tracemalloc.stop()

    async with grpc.aio.insecure_channel(server.target, interceptors=aio_no_op()) as channel:
        alone = await measured(channel)
    breakers = _breakers()
    guards = aio_interceptors(registry=breakers, **options)
    tasks = len(asyncio.all_tasks())
    async with grpc.aio.insecure_channel(server.target, interceptors=guards) as channel:
        assert await measured(channel) < max(alone, 0.0) + PER_CALL * max(1, 1000 / calls)
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110 - of grpcio's making
                await asyncio.sleep(0.01)
    _assert_no_permit_is_left(breakers, way)


async def _aio_make(way: Way, channel: Any, number: int) -> None:
    for _ in range(number):
        await aio_finish(way, channel, ORDER)


def _assert_no_permit_is_left(breakers: BreakerRegistry, way: Way) -> None:
    breaker = breakers.get(way.path)
    assert breaker.state == "closed"
    counters = breaker.snapshot().counters
    assert counters.failed == counters.expired == 0
