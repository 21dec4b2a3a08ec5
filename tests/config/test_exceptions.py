"""Exception classes by name: never imported, and the right ones once they are loaded."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType

import grpc.aio
import pytest

from fusewire.breaker import BreakerSettings, CircuitBreaker, Outcome
from fusewire.config._exceptions import exception_named, name_of_exception
from fusewire.config._values import Misread


def named(name: str) -> type[BaseException]:
    found = exception_named(name)
    assert not isinstance(found, Misread)
    return found


def test_a_name_without_a_dot_is_pythons_own() -> None:
    assert named("TimeoutError") is TimeoutError


def test_a_dotted_name_stands_for_the_class_once_its_module_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaker = CircuitBreaker(
        "a", settings=BreakerSettings(expected_exceptions=(named("shop.errors.PaymentError"),))
    )
    assert breaker.classify(KeyError()) is Outcome.IGNORED
    module = ModuleType("shop.errors")
    kind = type("PaymentError", (Exception,), {"__module__": "shop._private"})
    vars(module)["PaymentError"] = kind
    monkeypatch.setitem(sys.modules, "shop.errors", module)
    assert breaker.classify(kind()) is Outcome.FAILURE
    assert breaker.classify(type("More", (kind,), {})()) is Outcome.FAILURE
    assert breaker.classify(KeyError()) is Outcome.IGNORED


def test_without_the_module_the_class_is_known_by_its_own_name() -> None:
    kind = type("LostError", (Exception,), {"__module__": "nowhere.loaded"})
    assert isinstance(type("Sub", (kind,), {})(), named("nowhere.loaded.LostError"))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("asyncio.TimeoutError", TimeoutError()),
        ("asyncio.exceptions.IncompleteReadError", asyncio.IncompleteReadError(b"", 1)),
        ("grpc.RpcError", grpc.RpcError()),
    ],
)
def test_a_class_may_be_named_by_where_it_is_imported_from(name: str, error: Exception) -> None:
    assert isinstance(error, named(name))


def test_the_class_of_a_private_module_goes_by_its_public_name() -> None:
    kind = grpc.aio.AioRpcError
    assert kind.__module__ != "grpc.aio"
    error = kind.__new__(kind)
    assert isinstance(error, named("grpc.aio.AioRpcError"))


def test_the_same_name_is_the_same_object_so_that_settings_are_equal() -> None:
    assert named("a.b.C") is named(" a.b.C ")
    assert name_of_exception(named("a.b.C")) == "a.b.C"
    assert repr(named("a.b.C")) == "<exception a.b.C>"
    assert name_of_exception(KeyError) == "KeyError"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("TimeoutErr", "did you mean TimeoutError?"),
        ("print", "write the module too, as in grpc.RpcError"),
        ("", "write the module too, as in grpc.RpcError"),
        ("a b.C", "write the module too, as in grpc.RpcError"),
        ("asyncio.TimeoutEror", "has no such class: did you mean asyncio.TimeoutError?"),
        ("asyncio.sleep", "asyncio.sleep is there, and is no exception: name a class"),
        ("asyncio.Qqqq", "the module asyncio has no such class: correct the name"),
    ],
)
def test_what_cannot_be_an_exception_is_refused(name: str, remedy: str) -> None:
    refused = exception_named(name)
    assert isinstance(refused, Misread)
    assert remedy in refused.remedy
