"""What gRPC itself offers works under a guard: its retries, waiting for a server, compression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_no_op import aio_no_op
from tests.support.grpc_server import ask, wait_until
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS, aio_finish, finish

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedRegistry
    from tests.support.grpc_server import EchoServer
    from tests.support.grpc_ways import Way

FAILURE = [Outcome.FAILURE]

_RETRIES = """{"methodConfig": [{"name": [{}], "retryPolicy": {
    "maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.01s",
    "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""


@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_grpcs_own_retries_are_one_call(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    before = server.seen()["begun"]
    options = [("grpc.service_config", _RETRIES)]
    channel = grpc.insecure_channel(server.target, options=options)
    with guard(channel, registry=registry) as guarded:
        finish(way, guarded, ask(code="UNAVAILABLE", messages=0))
    breaker = registry.get(way.path)
    wait_until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == FAILURE
    assert server.seen()["begun"] == before + 3


@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_a_call_that_waits_for_a_dead_server_counts_at_its_deadline(
    way: Way, registry: WatchedRegistry
) -> None:
    with guard(grpc.insecure_channel("127.0.0.1:1"), registry=registry) as guarded:
        seen = finish(way, guarded, ask(), wait_for_ready=True, timeout=0.1)
    assert grpc.StatusCode.DEADLINE_EXCEEDED in {*seen, *(seen[0] if seen else ())}
    breaker = registry.get(way.path)
    wait_until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == FAILURE


@pytest.mark.parametrize("way", SYNC_WAYS, ids=str)
def test_compression_passes_through(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    order = ask(reply="x" * 4096)
    with grpc.insecure_channel(server.target) as bare:
        without = finish(way, bare, order, compression=grpc.Compression.Gzip)
    channel = grpc.insecure_channel(server.target, compression=grpc.Compression.Deflate)
    with guard(channel, registry=registry) as guarded:
        assert finish(way, guarded, order, compression=grpc.Compression.Gzip) == without


@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_grpcs_own_retries_are_one_call_on_asyncio(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    before = server.seen()["begun"]
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel(
        server.target,
        options=[("grpc.service_config", _RETRIES)],
        interceptors=interceptors,
    ) as channel:
        await aio_finish(way, channel, ask(code="UNAVAILABLE", messages=0))
        breaker = registry.get(way.path)
        await until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == FAILURE
    assert server.seen()["begun"] == before + 3


@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_an_asyncio_call_that_waits_for_a_dead_server_counts_at_its_deadline(
    way: Way, registry: WatchedRegistry
) -> None:
    interceptors = aio_interceptors(registry=registry)
    async with grpc.aio.insecure_channel("127.0.0.1:1", interceptors=interceptors) as channel:
        seen = await aio_finish(way, channel, ask(), wait_for_ready=True, timeout=0.1)
        assert grpc.StatusCode.DEADLINE_EXCEEDED in seen
        breaker = registry.get(way.path)
        await until(breaker.every_permit_settled_once, "the permit")
    assert breaker.outcomes == FAILURE


@pytest.mark.parametrize("way", AIO_WAYS, ids=str)
async def test_compression_passes_through_on_asyncio(
    way: Way, server: EchoServer, registry: WatchedRegistry
) -> None:
    order = ask(reply="x" * 4096)
    interceptors = aio_interceptors(registry=registry)
    compression = grpc.Compression
    async with (
        grpc.aio.insecure_channel(server.target, interceptors=aio_no_op()) as bare,
        grpc.aio.insecure_channel(
            server.target, compression=compression.Deflate, interceptors=interceptors
        ) as guarded,
    ):
        without = await aio_finish(way, bare, order, compression=compression.Gzip)
        assert await aio_finish(way, guarded, order, compression=compression.Gzip) == without
