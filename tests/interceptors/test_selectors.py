from __future__ import annotations

import re
from typing import Any

import grpc
import pytest

from fusewire.breaker import BreakerSettings, Outcome
from fusewire.errors import SettingsError
from fusewire.interceptors import CallEnd, CallInfo, Classification, aio_interceptors, guard
from fusewire.interceptors._selectors import Selectors, selected

BAD = [
    "",
    "Service/Method",
    "/Service",
    "/Service/",
    "//Method",
    "/a/b/c",
    "/*/Method",
    "/a/*b",
    "/a b/c",
    "**",
    None,
    7,
]


def test_the_method_wins_over_its_service_and_the_service_over_everything() -> None:
    found = Selectors("x", {"*": 1, "/p.S/*": 2, "/p.S/M": 3}).find
    assert [found("/p.S/M"), found("/p.S/N"), found("/p.T/M")] == [3, 2, 1]


def test_a_method_that_no_selector_names_has_no_value() -> None:
    assert Selectors("x", {"/p.S/*": 2}).find("/p.T/M") is None


def test_none_for_a_method_wins_over_a_value_for_its_service() -> None:
    assert Selectors("x", {"/p.S/*": 2, "/p.S/M": None}).find("/p.S/M") is None


@pytest.mark.parametrize("selector", BAD)
@pytest.mark.parametrize("setting", ["settings", "fallbacks", "classify"])
def test_a_malformed_selector_is_refused_by_name(setting: Any, selector: Any) -> None:
    values = {"settings": BreakerSettings(), "fallbacks": b"", "classify": Classification()}
    with pytest.raises(
        SettingsError, match=f"in {setting} must be .* got {re.escape(repr(selector))}"
    ):
        aio_interceptors(**{setting: {selector: values[setting]}})


def test_a_malformed_selector_of_idempotent_methods_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"in idempotent must be .* got 'Charge'"):
        aio_interceptors(idempotent={"Charge"})


def test_one_string_is_not_a_collection_of_selectors() -> None:
    with pytest.raises(SettingsError, match=r"must be a collection of selectors, got .*; write \{"):
        selected("idempotent", "/p.S/M")


@pytest.mark.parametrize("dependency", ["", "payments eu", "zahlungen-ü", 7])
def test_a_dependency_that_is_no_name_is_refused(dependency: Any) -> None:
    with pytest.raises(SettingsError, match="dependency"):
        aio_interceptors(dependency=dependency)


@pytest.mark.parametrize("settings", [5, "x", {"*": 5}, {"*": True}])
def test_settings_that_are_none_are_refused(settings: Any) -> None:
    with pytest.raises(SettingsError, match="settings"):
        aio_interceptors(settings)


async def _classify_later(end: CallEnd) -> Outcome:
    return Outcome.SUCCESS


class _ClassifiesLater:
    async def __call__(self, end: CallEnd) -> Outcome:
        return Outcome.SUCCESS


@pytest.mark.parametrize("classify", ["FAILURE", _classify_later, _ClassifiesLater()])
def test_a_classify_that_cannot_be_called_is_refused(classify: Any) -> None:
    for given in (classify, {"*": classify}):
        with pytest.raises(SettingsError, match="classify"):
            aio_interceptors(classify=given)
        with (
            grpc.insecure_channel("127.0.0.1:1") as channel,
            pytest.raises(SettingsError, match="classify"),
        ):
            guard(channel, classify=given)


@pytest.mark.parametrize(
    ("settings", "selector"),
    [({"/p.S/M": None, "*": BreakerSettings()}, "/p.S/M"), (None, "/grpc.health.v1.Health/Check")],
)
def test_a_fallback_that_would_never_be_asked_is_refused(settings: Any, selector: Any) -> None:
    with pytest.raises(SettingsError, match="must be for a guarded method"):
        aio_interceptors(settings, fallbacks={selector: b""})


async def _later(request: bytes, error: Any) -> None: ...


class _Later:
    async def __call__(self, request: bytes, error: Any) -> None: ...


@pytest.mark.parametrize("fallback", [_later, _Later()])
def test_a_sync_channel_refuses_a_coroutine_function_as_fallback(fallback: Any) -> None:
    with (
        grpc.insecure_channel("127.0.0.1:1") as channel,
        pytest.raises(SettingsError, match=r"fallbacks\['/p.S/M'\] must be .*coroutine function"),
    ):
        guard(channel, fallbacks={"/p.S/M": fallback})


def test_an_asyncio_channel_takes_a_coroutine_function_as_fallback() -> None:
    assert aio_interceptors(fallbacks={"/p.S/M": _later})


async def test_guard_refuses_an_asyncio_channel_and_says_what_to_do() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(SettingsError, match="aio_interceptors"):
            guard(channel)


def test_what_a_fallback_is_told_cannot_be_changed_by_it() -> None:
    with pytest.raises(AttributeError):
        CallInfo("/p.S/M", "b", (), None).method = "other"
