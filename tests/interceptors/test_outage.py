"""A server that is gone for a while: after its return a probe or two close the circuit."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import grpc
import pytest

from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CircuitBreaker,
    Event,
    StateChanged,
)
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_server import ECHO, EchoServer, ask

RECOVERY = 1.0
OPTIONS = [("grpc.max_reconnect_backoff_ms", 1000)]
OUTAGES = pytest.mark.parametrize(
    "seconds", [pytest.param(30.0, marks=pytest.mark.long), 2.0], ids=["long", "short"]
)
HARM = pytest.mark.parametrize("hung", [False, True], ids=["killed", "hung"])
ROUNDS = 1  # of probes that may fail after the return: gRPC connects again every second


def make_breakers() -> BreakerRegistry:
    return BreakerRegistry(
        BreakerSettings(failure_threshold=3, recovery_timeout=RECOVERY, half_open_max_calls=1)
    )


def reopenings(breaker: CircuitBreaker) -> list[StateChanged]:
    """Return a list to which each further opening is added."""
    found: list[StateChanged] = []

    def note(event: Event) -> None:
        if isinstance(event, StateChanged) and event.new == "open":
            found.append(event)

    breaker.add_listener(note)
    return found


def _harm(server: EchoServer, *, hung: bool) -> None:
    server.pause() if hung else server.kill()


def _heal(server: EchoServer, *, hung: bool) -> None:
    server.resume() if hung else server.start()


@OUTAGES
@HARM
def test_a_sync_channels_circuit_closes_soon_after_the_servers_return(
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
        opened = reopenings(breaker)
        go_on_until(lambda: breaker.state == "closed")
        assert len(opened) <= ROUNDS


@OUTAGES
@HARM
async def test_an_asyncio_channels_circuit_closes_soon_after_the_servers_return(
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
        opened = reopenings(breaker)
        await go_on_until(lambda: breaker.state == "closed")
        assert len(opened) <= ROUNDS
