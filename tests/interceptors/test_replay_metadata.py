"""Calls of a replay say so to the server, on each channel and in each way of calling."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.interceptors import aio_interceptors, guard
from fusewire.operation import REPLAY_METADATA, operation
from tests.support.grpc_server import ask
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.grpc_server import EchoServer

GUARDS: dict[str, dict[str, Any]] = {
    "guarded": {},
    "with keys": {"idempotent": {"*"}},
    "with a fallback": {"fallbacks": {"*": lambda _request, error: error}},
    "not guarded": {"settings": {"*": None}},
    "not guarded, with keys": {"settings": {"*": None}, "idempotent": {"*"}},
}
each_guard = pytest.mark.parametrize(
    "options", [pytest.param(options, id=name) for name, options in GUARDS.items()]
)

METADATA: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "tuple": lambda: (("x-other", "1"),),
    "list": lambda: [("x-other", "1")],
    "metadata": lambda: grpc.aio.Metadata(("x-other", "1")),
    "items": {"x-other": "1"}.items,
}
each_metadata = pytest.mark.parametrize("kind", METADATA)


def marks(server: EchoServer) -> list[str]:
    return [value for key, value in server.seen()["metadata"] if key == REPLAY_METADATA]


def others(server: EchoServer) -> int:
    return sum(key == "x-other" for key, _ in server.seen()["metadata"])


@each_metadata
@each_guard
@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_sync_call_of_a_replay_is_marked(
    way: Way, options: Any, kind: str, server: EchoServer
) -> None:
    channel = guard(grpc.insecure_channel(server.target), registry=BreakerRegistry(), **options)
    with channel, operation("o-1", replay=True):
        finish(way, channel, ask(), metadata=METADATA[kind]())
    assert marks(server) == ["1"]
    assert others(server) == (kind != "none")


@each_metadata
@each_guard
@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_an_asyncio_call_of_a_replay_is_marked(
    way: Way, options: Any, kind: str, server: EchoServer
) -> None:
    interceptors = aio_interceptors(registry=BreakerRegistry(), **options)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        with operation("o-1", replay=True):
            await aio_finish(way, channel, ask(), metadata=METADATA[kind]())
    assert marks(server) == ["1"]
    assert others(server) == (kind != "none")


@each_guard
@pytest.mark.parametrize("way", [SYNC_WAYS[0], SYNC_WAYS[3]], ids=str)
def test_no_other_sync_call_is_marked(way: Way, options: Any, server: EchoServer) -> None:
    channel = guard(grpc.insecure_channel(server.target), registry=BreakerRegistry(), **options)
    with channel:
        finish(way, channel, ask())
        assert marks(server) == []
        with operation("o-1"):
            finish(way, channel, ask())
        assert marks(server) == []


@each_guard
@pytest.mark.parametrize("way", [AIO_WAYS[0], AIO_WAYS[1]], ids=str)
async def test_no_other_asyncio_call_is_marked(way: Way, options: Any, server: EchoServer) -> None:
    interceptors = aio_interceptors(registry=BreakerRegistry(), **options)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        await aio_finish(way, channel, ask())
        assert marks(server) == []
        with operation("o-1"):
            await aio_finish(way, channel, ask())
        assert marks(server) == []


@each_guard
async def test_the_callers_own_value_is_left_alone(options: Any, server: EchoServer) -> None:
    own = ((REPLAY_METADATA, "later"),)
    with operation("o-1", replay=True):
        channel = guard(grpc.insecure_channel(server.target), registry=BreakerRegistry(), **options)
        with channel:
            await asyncio.to_thread(finish, SYNC_WAYS[0], channel, ask(), metadata=own)
        assert marks(server) == ["later"]
        interceptors = aio_interceptors(registry=BreakerRegistry(), **options)
        async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as aio:
            await aio_finish(AIO_WAYS[0], aio, ask(), metadata=own)
        assert marks(server) == ["later"]


async def test_a_task_that_outlives_the_replay_is_ordinary_traffic(server: EchoServer) -> None:
    registry = BreakerRegistry(BreakerSettings())
    registry.measure_durations()
    over = asyncio.Event()
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:

        async def refresh() -> None:
            await over.wait()
            await aio_finish(AIO_WAYS[0], channel, ask())

        with operation("o-1", replay=True):
            task = asyncio.create_task(refresh())
        over.set()
        await task
    assert marks(server) == []
    durations = registry.get(AIO_WAYS[0].path).durations
    assert durations is not None
    assert durations.baseline() is not None


@pytest.mark.parametrize("settings", [{"*": None}, None])
def test_what_is_no_metadata_is_refused_as_without_a_guard(
    settings: Any, server: EchoServer
) -> None:
    def seen(channel: Any) -> Any:
        with channel, operation("o-1", replay=True):
            return finish(SYNC_WAYS[0], channel, ask(), metadata=(1, 2))

    without = seen(grpc.insecure_channel(server.target))
    registry = BreakerRegistry()
    channel = guard(grpc.insecure_channel(server.target), settings, registry=registry)
    assert seen(channel) == without
