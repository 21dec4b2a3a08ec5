"""A fallback is counted once for each call, whatever way the call was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.interceptors import FallbackDeclined, aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_server import ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.grpc_server import EchoServer

FAILS = ask(code="UNAVAILABLE", messages=0)


def declines(_request: Any, _error: Any) -> NoReturn:
    raise FallbackDeclined("not this one")


def misses(_request: Any, _error: Any) -> NoReturn:
    raise KeyError("not in the cache")


def breaks_off(_request: Any, _error: Any) -> Iterator[bytes]:
    yield b"first"
    raise KeyError("not in the cache")


def answer(way: Way) -> Any:
    return lambda _request, _error: [b"a", b"b"] if way.streams else b"a"


def counts(registry: BreakerRegistry, way: Way) -> tuple[int, int]:
    counters = registry.get(way.path).figures().counters
    return counters.fallbacks_answered, counters.fallbacks_failed


@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_on_a_sync_channel(way: Way, server: EchoServer) -> None:
    registry = BreakerRegistry()
    for fallback, expected in (
        (answer(way), (1, 0)),
        (misses, (1, 1)),
        (declines, (1, 2)),
    ):
        bare = grpc.insecure_channel(server.target)
        with guard(bare, registry=registry, fallbacks={way.path: fallback}) as channel:
            finish(way, channel, FAILS)
            wait_until(lambda wanted=expected: counts(registry, way) == wanted, "it is counted")
    registry.get(way.path).force_open()
    bare = grpc.insecure_channel(server.target)
    with guard(bare, registry=registry, fallbacks={way.path: answer(way)}) as channel:
        finish(way, channel, b"rejected")
        wait_until(lambda: counts(registry, way) == (2, 2), "it is counted")


@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_on_an_asyncio_channel(way: Way, server: EchoServer) -> None:
    registry = BreakerRegistry()
    for fallback, expected in (
        (answer(way), (1, 0)),
        (misses, (1, 1)),
        (declines, (1, 2)),
    ):
        guards = aio_interceptors(registry=registry, fallbacks={way.path: fallback})
        async with grpc.aio.insecure_channel(server.target, interceptors=guards) as channel:
            await aio_finish(way, channel, FAILS)
            await until(lambda wanted=expected: counts(registry, way) == wanted, "it is counted")
    registry.get(way.path).force_open()
    guards = aio_interceptors(registry=registry, fallbacks={way.path: answer(way)})
    async with grpc.aio.insecure_channel(server.target, interceptors=guards) as channel:
        await aio_finish(way, channel, b"rejected")
        await until(lambda: counts(registry, way) == (2, 2), "it is counted")


def test_a_stream_that_a_fallback_breaks_off_was_answered(server: EchoServer) -> None:
    (way,) = [each for each in SYNC_WAYS if each.shape == "unary_stream"]
    registry = BreakerRegistry()
    bare = grpc.insecure_channel(server.target)
    with guard(bare, registry=registry, fallbacks={way.path: breaks_off}) as channel:
        finish(way, channel, FAILS)
        assert counts(registry, way) == (1, 0)
