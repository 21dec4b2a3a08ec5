"""Which functions can be called where nobody awaits or iterates over what they return."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_MAKES_WHAT_DOES_NOT_RUN = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


def is_plain_function(value: object) -> bool:
    """Tell whether `value` can be called and has done its work when it returns.

    Not a coroutine function, nor one that makes a generator: called, it does nothing yet.
    """
    if not callable(value):
        return False
    call = type(value).__call__  # an object's, whose class may have made it a coroutine function
    return not any(makes(value) or makes(call) for makes in _MAKES_WHAT_DOES_NOT_RUN)


def awaitable_of(func: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> Awaitable[T]:
    """Call `func` and return what it returns, which is to be awaited.

    Raises:
        SettingsError: it cannot be.
    """
    result: object = func(*args, **kwargs)
    if not inspect.isawaitable(result):
        raise SettingsError(
            f"call_async awaits what the function returns, and {func!r} returned {result!r}: call "
            "plain functions by call()"
        )
    return result
