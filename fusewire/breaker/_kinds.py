"""Kinds of functions: plain ones, and those that make a coroutine or a generator."""

from __future__ import annotations

import inspect
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_ITERABLE_COROUTINE
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_KINDS = {
    CO_COROUTINE: inspect.iscoroutinefunction,
    CO_GENERATOR: inspect.isgeneratorfunction,
    CO_ASYNC_GENERATOR: inspect.isasyncgenfunction,
}
_ANY_KIND = CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR


def kind_of(func: Callable[..., Any]) -> int:
    """Return the flag of the coroutine or generator that `func` makes; 0 if it makes neither."""
    # `inspect` is slow, and most functions have the flags.
    code = getattr(func, "__code__", None)
    if code is not None:
        flags: int = code.co_flags
        # A function of ``types.coroutine`` makes a generator that is awaited.
        return 0 if flags & CO_ITERABLE_COROUTINE else flags & _ANY_KIND
    call: Any = getattr(func, "__call__", None)  # noqa: B004 - asks how an object's call behaves, not whether
    return next((kind for kind, fits in _KINDS.items() if fits(func) or fits(call)), 0)
