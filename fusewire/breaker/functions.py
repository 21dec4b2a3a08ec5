"""Which functions can be called where nobody awaits or iterates over what they return."""

from __future__ import annotations

import inspect

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
