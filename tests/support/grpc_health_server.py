"""A real server with the official health servicer, and what its clients are told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Probe:
    """Asks like ``grpc_health_probe`` and Kubernetes do."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = health_pb2_grpc.HealthStub(channel)

    def check(self, service: str) -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = self._stub.Check(request, timeout=10).status
        return status

    def watch(self, service: str) -> Iterator[int]:
        request = health_pb2.HealthCheckRequest(service=service)
        for response in self._stub.Watch(request, timeout=60):
            yield response.status


@contextmanager
def health_server() -> Iterator[tuple[health.HealthServicer, Probe]]:
    """Run a sync server for the block."""
    servicer = health.HealthServicer()
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield servicer, Probe(channel)
        finally:
            server.stop(None).wait()


class AioProbe:
    """Asks like :class:`Probe`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = health_pb2_grpc.HealthStub(channel)

    async def check(self, service: str) -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = (await self._stub.Check(request, timeout=10)).status
        return status

    async def watch(self, service: str) -> AsyncGenerator[int, None]:
        request = health_pb2.HealthCheckRequest(service=service)
        call = self._stub.Watch(request, timeout=60)
        try:
            async for response in call:
                yield response.status
        finally:
            call.cancel()


@asynccontextmanager
async def aio_health_server() -> AsyncIterator[tuple[health.aio.HealthServicer, AioProbe]]:
    """Run an asyncio server for the block."""
    servicer = health.aio.HealthServicer()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield servicer, AioProbe(channel)
    finally:
        await server.stop(None)
