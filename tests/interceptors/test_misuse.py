"""What cannot be right about a guard is refused in words that say what to do, or warned of once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.errors import SettingsError
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_server import ECHO, EchoServer, ask

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("critical", r"got 'critical'; write fusewire\.breaker\.PRESETS\['critical'\]"),
        ({"*": "critical"}, r"settings\['\*'\] must be .*PRESETS\['critical'\]"),
        (3, "settings must be BreakerSettings or a mapping from selectors"),
        ({"/a.B/C": 3}, r"settings\['/a.B/C'\] must be BreakerSettings or None"),
        ({"/a.B/C": {"failure_treshold": 3}}, r"settings\['/a.B/C'\] .* mean failure_threshold\?"),
        ({"/a.B/C": {"failure_threshold": 3}}, r"write BreakerSettings\(failure_threshold=3\)"),
    ],
)
def test_settings_that_are_none_are_reported_with_their_selector(wrong: Any, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        aio_interceptors(wrong)


def test_settings_of_several_selectors_are_reported_at_once() -> None:
    with pytest.raises(SettingsError, match=r"settings\['/a\.B/C'\] .*; settings\['\*'\] "):
        aio_interceptors({"/a.B/C": 3, "*": "5s"})


def test_a_choice_with_a_typo_is_reported_with_its_selector_and_the_nearest_one() -> None:
    wrong: Any = {"/a.B/*": "firstmessage"}
    with pytest.raises(SettingsError) as caught:
        aio_interceptors(streams=wrong)
    assert str(caught.value) == (
        "streams['/a.B/*'] must be 'end', 'first_message' or 'total_time', got 'firstmessage'; "
        "did you mean 'first_message'?"
    )


async def test_a_channel_in_place_of_settings_is_told_what_to_do() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(SettingsError, match="give them to the channel's constructor"):
            aio_interceptors(channel)


def test_a_target_in_place_of_a_channel_is_told_what_to_do() -> None:
    with pytest.raises(SettingsError) as caught:
        guard("payments:50051")
    assert "write guard(grpc.insecure_channel('payments:50051'))" in str(caught.value)


async def test_an_asyncio_channel_is_told_how_it_is_guarded() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(SettingsError, match="interceptors=aio_interceptors"):
            guard(channel)


def test_anything_else_is_no_channel() -> None:
    with pytest.raises(SettingsError, match=r"must be a grpc\.Channel, got 7"):
        guard(7)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


@pytest.fixture
def second() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


def test_two_servers_that_share_the_circuits_of_a_service_are_reported_once(
    server: EchoServer, second: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    registry = BreakerRegistry()
    for _ in range(2):
        for one in (server, second):
            inner = grpc.intercept_channel(one.connect())
            with guard(inner, registry=registry) as channel:
                channel.unary_unary(ECHO)(ask())
                channel.unary_unary("/test.Echo/Other")(ask())
    (warning,) = warned(caplog)
    assert server.target in warning
    assert second.target in warning
    assert "dependency=" in warning


def test_two_servers_are_distinguished_by_their_dependencies_or_registries(
    server: EchoServer, second: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    registry = BreakerRegistry()
    for name, one in (("eu", server), ("us", second)):
        with guard(one.connect(), registry=registry, dependency=name) as channel:
            channel.unary_unary(ECHO)(ask())
    for one in (server, second):
        with guard(one.connect(), registry=BreakerRegistry(BreakerSettings())) as channel:
            channel.unary_unary(ECHO)(ask())
    assert warned(caplog) == []
