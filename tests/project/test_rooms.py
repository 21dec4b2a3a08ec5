"""What is private to a room stays there; a module without an underscore is public on purpose."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.project.public_names import PUBLIC

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
GENERATED = ("_pb2.py", "_pb2_grpc.py")
FILES = sorted(
    path for path in (ROOT / "fusewire").rglob("*.py") if not path.name.endswith(GENERATED)
)

ON_PURPOSE = {
    *PUBLIC,
    "fusewire.breaker.internal",  # what the interceptors take besides the public names
    "fusewire.brokers.address",  # the plug-in point, which docs/write-a-broker.md explains
    "fusewire.brokers.message",
    "fusewire.brokers.protocol",
    "fusewire.brokers.rabbitmq",  # RabbitMQ's own words, for the audit and the commands
    "fusewire.brokers.sqlite",
    "fusewire.brokers.topology",
    "fusewire.cli",  # the entry point of the command
    "fusewire.config.internal",  # what the commands take besides the public names
    "fusewire.demo",
    "fusewire.demo.baselines",  # the demo's processes, which `python -m` runs
    "fusewire.demo.client",
    "fusewire.demo.orders",
    "fusewire.demo.payments",  # the generated code of the demo's service
    "fusewire.demo.payments.v1",
    "fusewire.demo.run",  # what the command takes of the demo
    "fusewire.demo.server",
    "fusewire.forwarding.internal",  # what the commands take besides the public names
    "fusewire.idempotency.internal",  # what the inbox takes besides the public names
    "fusewire.idempotency.v1",  # the generated code of the service `Operations`
    "fusewire.parking.internal",  # what forwarding takes besides the public names
    "fusewire.telemetry",  # the room, whose public modules are named below it
    "fusewire.testing.fixtures",  # a pytest plugin
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Find what a file imports, as far as it may be a module or a name of ours."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written with their whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def foreign_privates(module: str, names: Iterator[str]) -> list[str]:
    """Return the names that are private to a package in which `module` is not.

    Ruff's PLC2701 has the same rule for other libraries, and none for rooms: to it all of
    `fusewire` is one package.
    """
    return [
        name
        for name in names
        for depth, part in enumerate(name.split("."))
        if part.startswith("_")
        and not part.startswith("__")
        and not f"{module}.".startswith(".".join([*name.split(".")[:depth], ""]))
    ]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_module_imports_what_is_private_to_another_room(path: Path) -> None:
    assert foreign_privates(name_of(path), imported(path)) == []


def test_a_private_name_of_another_room_would_be_found() -> None:
    names = ["fusewire._locks.x", "fusewire.parking._work.x", "fusewire.breaker.x._y", "grpc._x"]
    assert foreign_privates("fusewire.forwarding.call", iter(names)) == names[1:]
    assert foreign_privates("fusewire.parking.consumer", iter(names)) == names[2:]


def test_every_module_without_an_underscore_is_public_on_purpose() -> None:
    assert {name_of(path) for path in FILES if "._" not in name_of(path)} == ON_PURPOSE
