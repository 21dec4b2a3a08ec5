"""One breaker for a whole service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from fusewire.breaker import BreakerSettings
from fusewire.errors import CircuitOpenError, SettingsError
from fusewire.interceptors import guard
from tests.support.grpc_server import CHAT, ECHO, GATHER, EchoServer, ask

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedRegistry


def test_the_methods_of_a_service_share_its_breaker(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    channel = grpc.insecure_channel(server.target)
    with guard(channel, registry=registry, breaker_per="service", dependency="eu") as guarded:
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                guarded.unary_unary(ECHO)(ask(code="UNAVAILABLE"))
        with pytest.raises(CircuitOpenError, match=r"eu/test\.Echo"):
            guarded.stream_unary(GATHER)(iter([ask()]))
    assert [breaker.name for breaker in registry] == ["eu/test.Echo"]


def test_a_method_that_settings_name_singly_has_a_breaker_of_its_own(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    settings = {
        ECHO: BreakerSettings(failure_threshold=1),
        CHAT: None,
        "/test.Echo/*": BreakerSettings(failure_threshold=7),
    }
    channel = grpc.insecure_channel(server.target)
    with guard(channel, settings, registry=registry, breaker_per="service") as guarded:
        guarded.unary_unary(ECHO)(ask())
        guarded.stream_unary(GATHER)(iter([ask()]))
        list(guarded.stream_stream(CHAT)(iter([ask()])))
    thresholds = {one.name: one.real.settings.failure_threshold for one in registry}
    assert thresholds == {ECHO: 1, "/test.Echo": 7}


def test_anything_but_a_method_or_a_service_is_refused() -> None:
    with (
        grpc.insecure_channel("127.0.0.1:1") as channel,
        pytest.raises(
            SettingsError, match=r"breaker_per must be 'method' or 'service', got 'host'"
        ),
    ):
        guard(channel, breaker_per="host")
