"""Exception classes that files name. A name is looked up, and never imported: a file runs no code.

A name without a dot is one of Python's own. A dotted name stands for the class that it names once
the program has loaded its module: until then no such exception can have been raised.
"""

from __future__ import annotations

import builtins
import functools
import re
import sys
from typing import Any

from fusewire._validation import nearest
from fusewire.config._values import Misread

_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")
_OWN = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


class _Named(type):
    """The type of classes that stand for exceptions by name."""

    named: str

    def __instancecheck__(cls, error: object) -> bool:
        meant = _loaded(cls.named)
        if isinstance(meant, type):
            return isinstance(error, meant)
        return any(_name_of(kind) == cls.named for kind in type(error).__mro__)

    def __repr__(cls) -> str:
        return f"<exception {cls.named}>"


def exception_named(name: str) -> type[BaseException] | Misread:
    """Return the exception class of this name: always the same object, so that settings are equal.

    A name whose module is loaded, and has no such exception, is a problem.
    """
    name = name.strip()
    if name in _OWN:
        return _OWN[name]
    if not _DOTTED.fullmatch(name):
        near = nearest(name, _OWN)
        hint = f"did you mean {near}?" if near else "write the module too, as in grpc.RpcError"
        return Misread(hint)
    found = _loaded(name)
    if found is not None and not (isinstance(found, type) and issubclass(found, BaseException)):
        return Misread(f"{name} is there, and is no exception: name a class")
    module = name.rpartition(".")[0]
    if found is None and _shows_all(module):
        near = nearest(name.rpartition(".")[2], _exceptions_in(module))
        hint = f"did you mean {module}.{near}?" if near else "correct the name"
        return Misread(f"the module {module} has no such class: {hint}")
    return _stand_in(name)


@functools.cache
def _stand_in(name: str) -> type[BaseException]:
    """Return the one class that stands for this name."""
    namespace = {"named": name, "__doc__": f"Stands for {name}.", "__module__": __name__}
    kind: Any = _Named(name.rpartition(".")[2], (BaseException,), namespace)
    stand_in: type[BaseException] = kind
    return stand_in


def name_of_exception(kind: type[BaseException]) -> str:
    """Return the name by which a file names an exception class."""
    meta: type = type(kind)
    return str(vars(kind)["named"]) if meta is _Named else _name_of(kind)


def _name_of(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _loaded(name: str) -> object:
    """Return what a dotted name stands for among the loaded modules, None if it is not there."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        value: object = sys.modules.get(".".join(parts[:end]))
        if value is None:
            continue
        for part in parts[end:]:
            # Not getattr: a module may import what it is asked for.
            value = getattr(value, "__dict__", {}).get(part)
        if value is not None:
            return value
    return None


def _shows_all(module: str) -> bool:
    """Return whether a module is loaded, and has no names that it loads when asked."""
    return module in sys.modules and "__getattr__" not in vars(sys.modules[module])


def _exceptions_in(module: str) -> list[str]:
    return [
        name
        for name, value in vars(sys.modules[module]).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    ]
