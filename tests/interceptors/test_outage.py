"""A server that is gone for a while: how soon after its return the circuit is closed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_server import ECHO, EchoServer, ask

RECOVERY = 1.0
OPTIONS = [("grpc.max_reconnect_backoff_ms", 1000)]
OUTAGES = pytest.mark.parametrize(
    "seconds", [pytest.param(30.0, marks=pytest.mark.long), 2.0], ids=["long", "short"]
)
HARM = pytest.mark.parametrize("hung", [False, True], ids=["killed", "hung"])
SPARE = 1.0  # seconds that a machine with other work may take besides


def make_breakers() -> BreakerRegistry:
    return BreakerRegistry(
        BreakerSettings(failure_threshold=3, recovery_timeout=RECOVERY, half_open_max_calls=1)
    )


def _harm(server: EchoServer, *, hung: bool) -> None:
    server.pause() if hung else server.kill()


def _heal(server: EchoServer, *, hung: bool) -> None:
    server.resume() if hung else server.start()


@OUTAGES
@HARM
def test_a_sync_channels_circuit_closes_within_a_recovery_timeout_of_the_servers_return(
    mortal: EchoServer, *, seconds: float, hung: bool
) -> None:
    breakers = make_breakers()
    channel = grpc.insecure_channel(mortal.target, options=OPTIONS)
    with guard(channel, registry=breakers) as guarded:
        call = guarded.unary_unary(ECHO)
        call(ask())
        breaker = breakers.get(ECHO)

        def go_on_until(condition: Any) -> None:
            while not condition():
                with contextlib.suppress(grpc.RpcError):
                    call(ask(), timeout=0.5)
                time.sleep(0.01)

        _harm(mortal, hung=hung)
        end = time.monotonic() + seconds
        go_on_until(lambda: time.monotonic() > end)
        assert breaker.state != "closed"
        _heal(mortal, hung=hung)
        back = time.monotonic()
        go_on_until(lambda: breaker.state == "closed")
        assert time.monotonic() - back < RECOVERY + SPARE


@OUTAGES
@HARM
async def test_an_asyncio_channels_circuit_closes_within_a_recovery_timeout_of_the_servers_return(
    mortal: EchoServer, *, seconds: float, hung: bool
) -> None:
    breakers = make_breakers()
    async with grpc.aio.insecure_channel(
        mortal.target, options=OPTIONS, interceptors=aio_interceptors(registry=breakers)
    ) as channel:
        call = channel.unary_unary(ECHO)
        await call(ask())
        breaker = breakers.get(ECHO)

        async def go_on_until(condition: Any) -> None:
            while not condition():
                with contextlib.suppress(grpc.RpcError):
                    await call(ask(), timeout=0.5)
                await asyncio.sleep(0.01)

        _harm(mortal, hung=hung)
        end = time.monotonic() + seconds
        await go_on_until(lambda: time.monotonic() > end)
        assert breaker.state != "closed"
        await asyncio.to_thread(_heal, mortal, hung=hung)
        back = time.monotonic()
        await go_on_until(lambda: breaker.state == "closed")
        assert time.monotonic() - back < RECOVERY + SPARE
