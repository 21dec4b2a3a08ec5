"""A guarded channel with a probe that asks a health service."""

from __future__ import annotations

from concurrent import futures
from typing import TYPE_CHECKING

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.interceptors import HealthProbe, guard
from tests.support.grpc_guard import Clock
from tests.support.grpc_health import Health

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.grpc_server import EchoServer


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def health_channel(health: Health) -> Iterator[grpc.Channel]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((health,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None).wait()


@pytest.fixture
def probe(health_channel: grpc.Channel) -> Iterator[HealthProbe]:
    with HealthProbe(health_channel, interval=0.01) as probe:
        yield probe


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> BreakerRegistry:
    settings = BreakerSettings(failure_threshold=1, recovery_timeout=30.0, half_open_max_calls=1)
    return BreakerRegistry(settings, clock=clock)


@pytest.fixture
def channel(
    server: EchoServer, probe: HealthProbe, breakers: BreakerRegistry
) -> Iterator[grpc.Channel]:
    with guard(grpc.insecure_channel(server.target), registry=breakers, health=probe) as channel:
        yield channel
