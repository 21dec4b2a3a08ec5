"""Whatever asks for a method's breaker before its channel does: the channel's settings apply."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitState
from fusewire.interceptors import aio_interceptors, guard
from fusewire.testing import Circuits
from tests.support.grpc_server import ECHO, EchoServer, ask

if TYPE_CHECKING:
    from collections.abc import Callable

STRICT = BreakerSettings(failure_threshold=1)
COMMON = BreakerSettings(failure_threshold=7)


def _get(registry: BreakerRegistry) -> None:
    registry.get(ECHO)


def _reset(registry: BreakerRegistry) -> None:
    Circuits(registry).reset(ECHO)


def _configure(registry: BreakerRegistry) -> None:
    registry.get(ECHO)
    registry.configure(COMMON, {"/test*": COMMON})


def _watch(registry: BreakerRegistry) -> None:
    registry.add_listener(lambda _: None)
    registry.measure_durations()
    registry.get(ECHO)


ASKERS = [_get, _reset, _configure, _watch]


@pytest.mark.parametrize("ask_first", ASKERS)
def test_a_channels_settings_apply_to_a_breaker_that_was_asked_for_before(
    ask_first: Callable[[BreakerRegistry], None], server: EchoServer
) -> None:
    registry = BreakerRegistry()
    bare = grpc.insecure_channel(server.target)
    with guard(bare, {"/test.Echo/*": STRICT}, registry=registry) as channel:
        ask_first(registry)
        echo = channel.unary_unary(ECHO)
        assert echo(ask()) == b"done"
        with pytest.raises(grpc.RpcError):
            echo(ask(code="UNAVAILABLE"))
    breaker = registry.get(ECHO)
    assert breaker.settings is STRICT
    assert breaker.state is CircuitState.OPEN


@pytest.mark.parametrize("ask_first", ASKERS)
async def test_so_do_those_of_an_asyncio_channel(
    ask_first: Callable[[BreakerRegistry], None], server: EchoServer
) -> None:
    registry = BreakerRegistry()
    interceptors = aio_interceptors({"/test.Echo/*": STRICT}, registry=registry)
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        ask_first(registry)
        echo = channel.unary_unary(ECHO)
        assert await echo(ask()) == b"done"
        with pytest.raises(grpc.RpcError):
            await echo(ask(code="UNAVAILABLE"))
    breaker = registry.get(ECHO)
    assert breaker.settings is STRICT
    assert breaker.state is CircuitState.OPEN
