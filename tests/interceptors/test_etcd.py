"""A server that is not ours: etcd, killed and started again under guarded calls."""

from __future__ import annotations

import asyncio
import queue
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import until
from tests.support.grpc_etcd import (
    PUT,
    RANGE,
    WATCH,
    Etcd,
    find_etcd,
    put_request,
    range_request,
    watch_request,
)
from tests.support.grpc_server import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fusewire.breaker import CircuitBreaker

OPTIONS = [("grpc.max_reconnect_backoff_ms", 100)]
SETTINGS = BreakerSettings(failure_threshold=2, recovery_timeout=0.2, half_open_max_calls=1)


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    if find_etcd() is None:
        pytest.skip("needs etcd (Debian: etcd-server), or FUSEWIRE_TEST_ETCD")
    server = Etcd(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def breakers() -> BreakerRegistry:
    return BreakerRegistry(SETTINGS)


def fail_until_open(breaker: CircuitBreaker, call: Callable[[], object]) -> None:
    """Call a server that is gone until the circuit is open."""
    while not breaker.snapshot().counters.opened:
        with pytest.raises(grpc.RpcError):
            call()


def test_unary_and_streaming_calls_to_etcd_recover_with_it(
    etcd: Etcd, breakers: BreakerRegistry
) -> None:
    bare = grpc.insecure_channel(etcd.target, options=OPTIONS)
    # A watch has no end of its own: its first message says that the server is well.
    with guard(bare, registry=breakers, streams={WATCH: "first_message"}) as channel:
        put, get = channel.unary_unary(PUT), channel.unary_unary(RANGE)
        watch = channel.stream_stream(WATCH)

        def read() -> bytes:
            value: bytes = get(range_request(b"key"), timeout=10)
            return value

        def watched(value: bytes) -> bytes:
            """Watch a key until it has changed."""
            orders: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            orders.put(watch_request(b"key"))
            events = watch(iter(orders.get, None), timeout=10)
            try:
                next(events)  # the watch is there
                put(put_request(b"key", value), timeout=10)
                event: bytes = next(events)
            finally:
                orders.put(None)
                events.cancel()
            return event

        assert b"first" in watched(b"first")
        assert b"first" in read()
        etcd.kill()
        fail_until_open(breakers.get(RANGE), read)
        fail_until_open(breakers.get(WATCH), lambda: watched(b"never"))
        etcd.start()
        for path in (RANGE, WATCH):
            breaker = breakers.get(path)
            wait_until(lambda breaker=breaker: breaker.state == "half_open", "the recovery time")
        assert b"first" in read()
        assert b"second" in watched(b"second")
        assert {breakers.get(path).state for path in (RANGE, WATCH)} == {"closed"}


async def test_asyncio_calls_to_etcd_recover_with_it(etcd: Etcd, breakers: BreakerRegistry) -> None:
    interceptors: Any = aio_interceptors(registry=breakers, streams="first_message")
    async with grpc.aio.insecure_channel(
        etcd.target, options=OPTIONS, interceptors=interceptors
    ) as channel:
        get, watch = channel.unary_unary(RANGE), channel.stream_stream(WATCH)

        async def created() -> bool:
            call: Any = watch(timeout=5)
            try:
                await call.write(watch_request(b"key"))
                return await call.read() is not grpc.aio.EOF
            finally:
                call.cancel()

        assert await get(range_request(b"key"))
        assert await created()
        etcd.kill()
        for path in (RANGE, WATCH):
            breaker = breakers.get(path)
            while not breaker.snapshot().counters.opened:
                # A writer to a call that has ended gets an error about the wrong use.
                with pytest.raises((grpc.RpcError, asyncio.InvalidStateError)):
                    await (get(range_request(b"key"), timeout=5) if path == RANGE else created())
        etcd.start()
        for path in (RANGE, WATCH):
            breaker = breakers.get(path)
            await until(lambda breaker=breaker: breaker.state == "half_open", "the recovery time")
            assert await (get(range_request(b"key"), timeout=10) if path == RANGE else created())
            assert breaker.state == "closed"
