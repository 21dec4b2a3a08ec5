"""The tree of exceptions at the top of `fusewire/errors.py` is what the classes say."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module

import fusewire
from fusewire import errors

ROOMS = (
    "errors",
    "breaker",
    "interceptors",
    "brokers",
    "parking",
    "forwarding",
    "config",
    "idempotency",
    "testing",
)
_NODE = re.compile(
    r"^ {4}((?:│   |    )*)(?:├── |└── )?([A-Z]\w*|\w+\.[A-Z]\w*)(?: \((.*)\))?(?:  |$)"
)


def drawn() -> dict[str, tuple[str, list[str]]]:
    """Read the drawing: by each class, the one it hangs from and those in brackets."""
    tree: dict[str, tuple[str, list[str]]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").split("::")[1].splitlines():
        if (node := _NODE.match(line)) is None:
            continue
        depth = 0 if not above else len(node[1]) // 4 + 1
        del above[depth:]
        others = node[3].split(", ") if node[3] else []
        tree[node[2]] = (above[-1] if above else "Exception", others)
        above.append(node[2])
    return tree


def exported() -> dict[type[errors.FusewireError], str]:
    """Find the exceptions that users can import, with the names that the drawing has for them."""
    found: dict[type[errors.FusewireError], str] = {}
    for room in ROOMS:
        module = import_module(f"fusewire.{room}")
        for name in module.__all__:
            given = getattr(module, name)
            if isinstance(given, type) and issubclass(given, errors.FusewireError):
                found.setdefault(given, name if room == "errors" else f"{room}.{name}")
    return found


def real() -> dict[str, tuple[str, list[str]]]:
    names = exported()
    tree: dict[str, tuple[str, list[str]]] = {}
    for kind, name in names.items():
        parent = next((base for base in kind.__mro__[1:] if base in names), None)
        own = [each for each in kind.__mro__ if _is_ours(each) and each not in _above(parent)]
        bases = {base for each in own for base in each.__bases__}
        others = [_name_of(each) for each in kind.__mro__ if each in bases and not _is_ours(each)]
        tree[name] = (names[parent] if parent else "Exception", others)
    return tree


def _above(parent: type | None) -> tuple[type, ...]:
    return (parent or Exception).__mro__


def _is_ours(kind: type) -> bool:
    return kind is Exception or kind.__module__.startswith("fusewire")


def _name_of(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__name__
    return f"grpc.{'aio.' if kind.__module__.startswith('grpc.aio') else ''}{kind.__name__}"


NEVER_STORED = {
    "fusewire.audit._management._RefusedError",
    "fusewire.demo._subprocesses.DemoError",
    "fusewire.forwarding._encryption.MissingKeyError",
    "fusewire.cli._operations.CannotAskError",  # a command's
    "fusewire.forwarding._encryption.WrongTagError",
    "fusewire.interceptors._rejection.Rejection",  # what is raised is one of its two subclasses
    "fusewire.parking._errors.Requeue",
}
"""Exceptions that are not exported. The name of any other may be stored with a message."""


def test_an_exception_that_may_be_stored_is_exported() -> None:
    for module in pkgutil.walk_packages(fusewire.__path__, "fusewire."):
        if not module.name.startswith(("fusewire.testing.conformance._", "fusewire.testing.fix")):
            import_module(module.name)
    names = exported()
    waiting: list[type[errors.FusewireError]] = [errors.FusewireError]
    private = set()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind not in names and kind.__module__.startswith("fusewire."):
            private.add(f"{kind.__module__}.{kind.__qualname__}")
    assert private == NEVER_STORED


def test_the_tree_that_is_drawn_is_that_of_the_classes() -> None:
    assert drawn() == real()
