"""Names of methods in settings: a typo is refused, or reported at the first call."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, Outcome
from fusewire.demo.payments.v1 import payments_pb2, payments_pb2_grpc
from fusewire.errors import SettingsError
from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_server import ECHO, STREAM, EchoServer, ask

if TYPE_CHECKING:
    from collections.abc import Callable

PAYMENTS = "/fusewire.demo.payments.v1.Payments"
SLIP = f"{PAYMENTS}/Chrage"


def made_sync(**options: Any) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        guard(channel, registry=BreakerRegistry(), **options)


def made_aio(**options: Any) -> None:
    aio_interceptors(registry=BreakerRegistry(), **options)


BOTH = pytest.mark.parametrize("make", [made_sync, made_aio])

GIVEN: dict[str, Callable[[str], Any]] = {
    "settings": lambda name: {name: BreakerSettings(), "*": BreakerSettings()},
    "fallbacks": lambda name: {name: b"instead"},
    "classify": lambda name: {name: lambda _end: Outcome.SUCCESS},
    "idempotent": lambda name: [name],
    "streams": lambda name: {name: "end"},
}
"""By setting, a value that names a method."""


@BOTH
@pytest.mark.parametrize("setting", list(GIVEN))
def test_a_method_that_its_service_does_not_have_is_refused_with_the_nearest_name(
    make: Callable[..., None], setting: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make(**{setting: GIVEN[setting](SLIP)})
    assert str(caught.value) == (
        f"{setting}[{SLIP!r}] must name a method of 'fusewire.demo.payments.v1.Payments'; "
        f"did you mean '{PAYMENTS}/Charge'?"
    )


@BOTH
def test_all_names_that_are_wrong_are_reported_at_once(make: Callable[..., None]) -> None:
    with pytest.raises(SettingsError) as caught:
        make(idempotent=[SLIP, f"{PAYMENTS}/Nothing"])
    assert "Charge'?; idempotent[" in str(caught.value)
    assert f"its methods are '{PAYMENTS}/Charge', " in str(caught.value)


@BOTH
@pytest.mark.parametrize("setting", list(GIVEN))
@pytest.mark.parametrize(
    "name", [f"{PAYMENTS}/Charge", f"{PAYMENTS}/*", "/not.yet.Imported/Method", "/not.yet.S/*"]
)
def test_what_may_be_right_is_taken(
    make: Callable[..., None], setting: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = GIVEN[setting](name)
    if setting == "fallbacks":
        given = {name: lambda _request, _error: b"instead"}
    make(**{setting: given})
    assert caplog.text == ""


@pytest.fixture(autouse=True)
def nothing_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusewire.interceptors._methods._warned", set())


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


def test_a_sync_channel_compares_names_with_the_methods_that_its_stubs_have_made(
    server: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"/test.Echo/Doo": BreakerSettings(), "*": BreakerSettings()}
    with guard(server.connect(), settings, registry=BreakerRegistry()) as channel:
        echo, _stream = channel.unary_unary(ECHO), channel.unary_stream(STREAM)
        assert warned(caplog) == []
        for _ in range(3):
            echo(ask())
    (warning,) = warned(caplog)
    assert warning == (
        "settings['/test.Echo/Doo'] must name a method of 'test.Echo'; "
        "did you mean '/test.Echo/Do'?"
    )


def test_a_method_that_is_only_not_called_yet_is_no_warning(
    server: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {
        ECHO: BreakerSettings(),
        STREAM: BreakerSettings(),
        "/test.Echo/Later": BreakerSettings(),
        "/test.Other/Method": BreakerSettings(),
        "*": BreakerSettings(),
    }
    with guard(server.connect(), settings, registry=BreakerRegistry()) as channel:
        channel.unary_stream(STREAM)
        channel.unary_unary(ECHO)(ask())
    assert warned(caplog) == []


def test_a_service_that_nothing_knows_is_reported_when_one_of_nearly_its_name_is_called(
    server: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"/test.Ehco/*": BreakerSettings(failure_threshold=1), "*": BreakerSettings()}
    with guard(server.connect(), settings, registry=BreakerRegistry()) as channel:
        channel.unary_unary(ECHO)(ask())
    (warning,) = warned(caplog)
    assert "'test.Ehco'" in warning
    assert "'test.Echo'" in warning


async def test_an_asyncio_channel_reports_a_service_of_nearly_the_name_too(
    server: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    interceptors = aio_interceptors({"/test.Ehco/Do": BreakerSettings(), "*": BreakerSettings()})
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        await channel.unary_unary(ECHO)(ask())
    assert len(warned(caplog)) == 1


def test_the_first_call_that_no_selector_matches_is_reported_once(
    server: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"/shop.Payments/*": BreakerSettings()}
    with guard(server.connect(), settings, registry=BreakerRegistry()) as channel:
        for _ in range(2):
            channel.unary_unary(ECHO)(ask())
            list(channel.unary_stream(STREAM)(ask()))
    (warning,) = warned(caplog)
    assert "'/test.Echo/Do' is not guarded" in warning
    assert '"*": None' in warning


def test_a_program_that_makes_a_channel_for_each_call_is_told_once(
    server: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"/test.Ehco/*": BreakerSettings(), "/test.Echo/Doo": BreakerSettings()}
    for _ in range(3):
        with guard(server.connect(), settings, registry=BreakerRegistry()) as channel:
            channel.unary_unary(ECHO)(ask())
    assert len(warned(caplog)) == 2  # the name, and that the call is not guarded


def test_methods_that_are_left_unguarded_on_purpose_are_no_warning(
    server: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    for settings in ({"*": None}, {"/test.Echo/*": None, "/a.B/*": BreakerSettings()}):
        with guard(server.connect(), settings, registry=BreakerRegistry()) as channel:
            channel.unary_unary(ECHO)(ask())
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"\n")
    assert warned(caplog) == []


def test_a_stub_that_is_imported_after_its_guard_is_compared_at_its_first_call(
    server: EchoServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {SLIP: BreakerSettings(), "*": BreakerSettings()}
    with monkeypatch.context() as before:
        before.setattr("fusewire.interceptors._methods.known_methods", lambda _service: None)
        channel = guard(server.connect(), settings, registry=BreakerRegistry())
    with channel:
        payments = payments_pb2_grpc.PaymentsStub(channel)
        with pytest.raises(grpc.RpcError):
            payments.GetBalance(payments_pb2.GetBalanceRequest(), timeout=5)
    (warning,) = warned(caplog)
    assert f"did you mean '{PAYMENTS}/Charge'?" in warning
