"""A failed gRPC call names its error by type and status, whatever way it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from fusewire.breaker import BreakerRegistry
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_server import ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, Way, aio_finish, finish

if TYPE_CHECKING:
    from tests.support.grpc_server import EchoServer

FAILS = ask(code="UNAVAILABLE", details="card 4111 1111 1111 1111")


def named(registry: BreakerRegistry, way: Way) -> tuple[str, str]:
    figures = registry.get(way.path).figures()
    assert "4111 1111" not in repr(figures)
    return figures.error_type, figures.error_status


@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_on_a_sync_channel(way: Way, server: EchoServer) -> None:
    registry = BreakerRegistry()
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        finish(way, channel, FAILS)
        wait_until(lambda: named(registry, way) == ("grpc.RpcError", "UNAVAILABLE"), "its name")


@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_on_an_asyncio_channel(way: Way, server: EchoServer) -> None:
    registry = BreakerRegistry()
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        await aio_finish(way, channel, FAILS)
        await until(lambda: named(registry, way) == ("grpc.RpcError", "UNAVAILABLE"), "its name")


def test_a_decorated_function_around_a_stub_names_it_alike(server: EchoServer) -> None:
    way = SYNC_WAYS[0]
    registry = BreakerRegistry()
    with grpc.insecure_channel(server.target) as channel:
        registry.get(way.path)(lambda: way.make(channel, FAILS))
        with pytest.raises(grpc.RpcError):
            registry.get(way.path).call(way.make, channel, FAILS)
    assert named(registry, way) == ("grpc.RpcError", "UNAVAILABLE")
