"""Servers and registries for the interceptors' tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import pytest
import trustme

from fusewire.breaker import BreakerSettings
from fusewire.interceptors import guard
from tests.support.grpc_etcd import have_etcd
from tests.support.grpc_guard import WatchedRegistry
from tests.support.grpc_server import ECHO, STREAM, EchoServer, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

Keyed: TypeAlias = Callable[..., Any]
"""Makes guarded channels with idempotent methods."""


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Have etcd installed now if a test needs it: that may take longer than a test may."""
    needed = any("etcd" in getattr(item, "fixturenames", ()) for item in session.items)
    if needed and not session.config.option.collectonly:
        have_etcd()


@pytest.fixture(scope="session")
def server() -> Iterator[EchoServer]:
    """A server that no test may harm."""
    with EchoServer() as echo:
        yield echo


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoServer]:
    """A server that no test may harm, over TLS."""
    directory: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(directory / "chain.pem", append=True)
    with EchoServer(tls=directory) as server:
        yield server


@pytest.fixture
def mortal() -> Iterator[EchoServer]:
    """A server of the test's own, to kill or to hang."""
    with EchoServer() as echo:
        yield echo


@pytest.fixture
def registry() -> WatchedRegistry:
    """Breakers that open at the second failure in a row and close at the first success."""
    return WatchedRegistry(
        BreakerSettings(failure_threshold=2, recovery_timeout=30.0, half_open_max_calls=1)
    )


@pytest.fixture
def bare(server: EchoServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.target) as channel:
        yield channel


@pytest.fixture
def guarded(server: EchoServer, registry: WatchedRegistry) -> Iterator[Any]:
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        yield channel


@pytest.fixture
def keyed(server: EchoServer, registry: WatchedRegistry) -> Iterator[Keyed]:
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Any:
            options.setdefault("idempotent", {ECHO, STREAM})
            bare = grpc.insecure_channel(server.target)
            return stack.enter_context(guard(bare, registry=registry, **options))

        yield make


@pytest.fixture
def channel_with(server: EchoServer, registry: WatchedRegistry) -> Iterator[Any]:
    """Make guarded channels with the fallback given."""
    channels = []

    def make(fallback: Any, **options: Any) -> Any:
        channel = guard(
            grpc.insecure_channel(server.target),
            registry=registry,
            fallbacks={ECHO: fallback},
            **options,
        )
        channels.append(channel)
        return channel

    yield make
    for channel in channels:
        channel.close()


@pytest.fixture
def breaker(registry: WatchedRegistry) -> Any:
    return registry.get(ECHO)


@pytest.fixture(scope="module")
async def one_loop(server: EchoServer) -> AsyncIterator[None]:
    """Run a module's tests on one event loop.

    grpcio has one completion queue for all loops of the process. What is left of a test's calls, a
    cancelled one's last event, say, may come when the test's own loop is closed, and then raises in
    the next test's loop.
    """
    yield
    async with grpc.aio.insecure_channel(server.target) as channel:
        await channel.unary_unary(ECHO)(ask())  # what came before it has come
