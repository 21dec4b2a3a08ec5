"""Fallbacks by name: a method of the same class, or a function of the same module.

A name is looked up at each answer, as Python looks up a method. So a subclass may replace the
fallback, and it may stand below its function in the file. What it names is checked as soon as it
can be seen: a module's function that stands above is when the function is decorated, anything else
at the first call of the function, whether that call fails or not.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from fusewire._validation import name_of
from fusewire.breaker._fallback_fit import answer_by, check_fallback
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_KNOWN = 32
"""Fallbacks of one name that are kept as checked: some attributes are another object each time."""


class NamedFallback:
    """An answer by a fallback that is known by its name.

    Args:
        func: the function that it answers for.
        name: the fallback's name.

    Raises:
        SettingsError: the function has no place to look in, or what is there does not fit.
    """

    def __init__(self, func: Callable[..., Any], name: str) -> None:
        self._func = func
        self._name = name
        self._known: dict[int, tuple[Any, str | None]] = {}
        home: Any = func
        while isinstance(home, functools.partial):
            home = home.func
        home = inspect.unwrap(home)
        if not inspect.isfunction(home):
            raise SettingsError(
                f"fallback of {name_of(func)}, which is no function of Python, must be a function, "
                f"got the name {name!r}"
            )
        self._module = home.__globals__
        owner = home.__qualname__.rpartition(".")[0]
        self._owner = "" if owner.endswith("<locals>") else owner
        self._own_name = home.__name__
        if not self._owner and name in self._module:
            self.check(())

    def check(self, args: tuple[Any, ...]) -> None:
        """Check what the name stands for, as far as can be seen from a call's arguments.

        Raises:
            SettingsError: nothing, or something that does not fit.
        """
        self._find(args)

    def __call__(self, error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a call."""
        fallback, bound, parameter = self._find(args)
        return answer_by(fallback, parameter)(error, args[bound:], kwargs)

    def _find(self, args: tuple[Any, ...]) -> tuple[Callable[..., Any], int, str | None]:
        """Return the fallback, how many of `args` it is bound to, and its parameter for the error.

        Raises:
            SettingsError: there is none, or it does not fit.
        """
        holder, bound = self._holder(args)
        fallback = (
            self._module.get(self._name) if holder is None else getattr(holder, self._name, None)
        )
        if not callable(fallback):
            place = self._owner or f"module {self._module['__name__']}"
            raise SettingsError(
                f"fallback of {name_of(self._func)} must name a function of {place}, got "
                f"{self._name!r}"
            )
        function = getattr(fallback, "__func__", fallback)
        # With the function itself, so that its number is not given to another one.
        known = self._known.get(id(function))
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            parameter = check_fallback(self._func, fallback, bound).error
            known = self._known[id(function)] = (function, parameter)
        return fallback, bound, known[1]

    def _holder(self, args: tuple[Any, ...]) -> tuple[Any, int]:
        """Return what has the fallback as an attribute, and how many of `args` that uses up.

        It is None for a function of a module.
        """
        if not self._owner:
            return None, 0
        owner = self._class()
        if isinstance(inspect.getattr_static(owner, self._own_name, None), staticmethod):
            return owner, 0
        return (args[0], 1) if args else (owner, 0)

    def _class(self) -> Any:
        """Return the class of the function; None if it is inside a function."""
        found: Any = None
        for step, part in enumerate(self._owner.split(".")):
            found = getattr(found, part, None) if step else self._module.get(part)
        return found
