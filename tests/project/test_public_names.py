"""The names that users may rely on are there, documented, and say where they are imported from."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys
import types
import typing
from datetime import UTC, datetime
from enum import Enum
from importlib import import_module
from typing import Any

import pytest

from fusewire._public import publish
from fusewire.breaker import Admission, BreakerSettings, CircuitBreaker, StateChanged
from fusewire.errors import BrokerUnavailableError, CircuitOpenError
from fusewire.parking import MessageOutcome
from tests.project.public_names import PUBLIC


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_exports_these_names_and_no_others(package: str) -> None:
    assert sorted(import_module(package).__all__) == PUBLIC[package]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_exported_name_is_there_and_documented(package: str) -> None:
    module = import_module(package)
    assert module.__doc__
    for name in PUBLIC[package]:
        exported = getattr(module, name)
        if inspect.isclass(exported) or inspect.isroutine(exported):
            assert exported.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_can_be_imported_first(package: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {package}"], check=True, timeout=60
    )


def test_the_breaker_needs_neither_grpc_nor_a_broker_client() -> None:
    program = "import sys, fusewire.breaker; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert {"grpc", "aio_pika", "google.protobuf"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("DELAY_TIERS", "fusewire.brokers.DEFAULT_DELAYS"),
        ("Finding", "fusewire.audit.Finding"),
        ("Severity", "fusewire.audit.Severity"),
    ],
)
def test_a_name_that_has_moved_says_where_to(name: str, now: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(f"import {now}")):
        getattr(import_module("fusewire.brokers"), name)


EXPORTED = {
    f"{package}.{name}": getattr(import_module(package), name)
    for package, names in PUBLIC.items()
    for name in names
}
CLASSES = {name: value for name, value in EXPORTED.items() if isinstance(value, type)}


@pytest.mark.parametrize("name", [*CLASSES, *(n for n in EXPORTED if n.islower())])
def test_an_exported_name_says_the_module_that_users_import_it_from(name: str) -> None:
    value = EXPORTED[name]
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__module__ in PUBLIC
        assert getattr(import_module(value.__module__), value.__qualname__) is value
        assert pickle.loads(pickle.dumps(value)) is value  # noqa: S301 - our own


@pytest.mark.parametrize("name", CLASSES)
def test_the_type_hints_of_a_public_class_can_be_had(name: str) -> None:
    hints = typing.get_type_hints(CLASSES[name])
    assert not [field for field, hint in hints.items() if isinstance(hint, str)]


def test_an_annotation_that_only_type_checkers_know_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("package")
    kind = type("Kind", (), {"__module__": "package._file", "__annotations__": {"x": "Absent"}})
    vars(module)["Kind"] = kind
    monkeypatch.setitem(sys.modules, "package", module)
    with pytest.raises(NameError, match="Absent") as caught:
        publish("package", ["Kind"])
    assert "package._file.Kind" in caught.value.__notes__[0]


def _examples() -> dict[str, Any]:
    """Make a value of each kind that a program may send to another process or keep."""
    breaker = CircuitBreaker("payments")
    events: list[object] = []
    breaker.add_listener(events.append)
    breaker.force_open()
    public = {name.rpartition(".")[2]: kind for name, kind in CLASSES.items()}
    made = [
        BreakerSettings(failure_threshold=3),
        breaker.snapshot(),
        breaker.look(),
        *events,
        CircuitOpenError("payments", "open", 2.5, "5 failures in a row"),
        BrokerUnavailableError("gone"),
        public["FallbackDeclined"]("no", metadata=(("a", "b"),)),
        public["HandlerTimeoutError"]("5 s"),
        public["MessageEvent"](MessageOutcome.PARKED, "op-1", "orders"),
        public["Message"](body=b"x", headers={"a": [1]}, timestamp=datetime.now(UTC)),
        public["Receipt"]("op-1", "/a.B/C", 1.5),
        public["Reject"]("malformed", reason="schema"),
        public["Retry"]("rate limited", after=5),
        public["Retry"](at=datetime.now(UTC)),
        public["Topology"]("orders", ("payments",)),
        *(member for kind in CLASSES.values() if issubclass(kind, Enum) for member in kind),
    ]
    assert {type(each) for each in events} == {StateChanged}
    assert isinstance(made[2], Admission)
    return {f"{number} {type(each).__name__}": each for number, each in enumerate(made)}


EXAMPLES = _examples()


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_value_is_the_same_after_pickling(example: str) -> None:
    value = EXAMPLES[example]
    again = pickle.loads(pickle.dumps(value))  # noqa: S301 - our own
    assert type(again) is type(value)
    if isinstance(value, Exception):
        assert (str(again), vars(again)) == (str(value), vars(value))
    else:
        assert again == value
