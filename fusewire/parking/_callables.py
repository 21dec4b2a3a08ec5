"""What users give to be called: refused when it is given, if it cannot do its work."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from fusewire.breaker import CircuitBreaker
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable


def name_of(function: object) -> str:
    """Return what people call `function`, for log lines and errors."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        function, name = type(function), type(function).__qualname__
    return f"{getattr(function, '__module__', '?')}.{name}"


def check_callable(what: str, function: object, argument: str) -> None:
    """Refuse what cannot be called with one argument, or does nothing when it is.

    Args:
        what: the setting's name.
        function: what was given.
        argument: what it will be called with, in words.

    Raises:
        SettingsError: it cannot do its work when it is called.
    """
    if isinstance(function, CircuitBreaker):
        raise SettingsError(
            f"{what}={function!r} is a circuit breaker: give a function that takes {argument}"
        )
    if isinstance(function, type):
        raise SettingsError(
            f"{what}={name_of(function)} is a class, and calling it only makes an object: give a "
            f"function that takes {argument}"
        )
    if not callable(function):
        raise SettingsError(f"{what}={function!r}: give a function that takes {argument}")
    if _either(inspect.isgeneratorfunction, function) or _either(
        inspect.isasyncgenfunction, function
    ):
        raise SettingsError(
            f"{what}={name_of(function)} is a generator function, and calling it runs nothing of "
            "it: take the yield out"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function in C that does not say
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise SettingsError(
            f"{what}={name_of(function)} cannot be called with {argument} alone: {error}"
        ) from None


def check_plain(what: str, function: object, argument: str) -> None:
    """Refuse what :func:`check_callable` does, and coroutine functions, which nobody would await.

    Raises:
        SettingsError: it cannot do its work when it is called.
    """
    check_callable(what, function, argument)
    if is_coroutine_function(function):
        raise SettingsError(
            f"{what}={name_of(function)} is a coroutine function, and nobody awaits it: give a "
            "plain one"
        )


def is_coroutine_function(function: object) -> bool:
    """Tell whether calling `function` gives a coroutine, an object with such a call included."""
    return _either(inspect.iscoroutinefunction, function)


def _either(kind: Callable[[Any], bool], function: object) -> bool:
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004 - an object's
