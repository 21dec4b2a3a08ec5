"""Public names say where users import them from, and not in which file they are defined."""

from __future__ import annotations

import inspect
import sys
import typing
from types import FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def publish(module: str, names: Iterable[str]) -> None:
    """Give the classes and functions that a package exports the package's name as their module.

    So a class is ``fusewire.breaker.CircuitBreaker`` in tracebacks, pickles and stored headers,
    whatever its file is called. What a package exports of another one keeps the other's name.

    Args:
        module: the package's ``__name__``.
        names: its ``__all__``.
    """
    package = sys.modules[module]
    for name in names:
        value = getattr(package, name)
        if not isinstance(value, type | FunctionType):
            continue
        if value.__module__.startswith(f"{module}."):
            if isinstance(value, type):
                _resolve_annotations(value)
            value.__module__ = module


def _resolve_annotations(cls: type) -> None:
    """Replace the annotations of `cls`, which are texts, by what they mean in its own file.

    ``typing.get_type_hints`` looks for their names in the module that the class says it is of.
    """
    texts = inspect.get_annotations(cls)
    if not texts:
        return
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        error.add_note(
            f"The annotations of {cls.__module__}.{cls.__qualname__} name what is imported for "
            "type checkers only: import it outside `if TYPE_CHECKING:`"
        )
        raise
    cls.__annotations__ = {name: hints[name] for name in texts}
