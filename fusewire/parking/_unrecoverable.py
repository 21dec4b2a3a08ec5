"""Which errors say that a message will never be handled: the user's own rule."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from fusewire._error_types import error_type
from fusewire._validation import invalid
from fusewire.parking._asking import ask
from fusewire.parking._breaker_names import check_function

logger = logging.getLogger("fusewire.parking")

DeadOn: TypeAlias = (
    type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
)
"""Exception types, or a function that returns whether an exception is one of them."""


def unrecoverable(dead_on: DeadOn) -> Callable[[BaseException], bool]:
    """Return a function that says of an error whether its message is dead at once.

    A function of the user's that raises is logged, and the error taken for one to try again.

    Raises:
        SettingsError: it is none of the kinds that :data:`DeadOn` names.
    """
    types = dead_on if isinstance(dead_on, tuple) else (dead_on,)
    if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in types):
        return lambda error: isinstance(error, types)  # type: ignore[arg-type] # seen just above
    if isinstance(dead_on, (tuple, type)) or not callable(dead_on):
        raise invalid(
            "dead_on", "an exception type, a tuple of them, or a function of an exception", dead_on
        )
    check_function("dead_on", dead_on, "an exception")
    asked: Callable[[BaseException], bool] = dead_on

    def is_unrecoverable(error: BaseException) -> bool:
        try:
            return bool(ask("dead_on", asked, error))
        except Exception:
            kind = error_type(type(error))  # and not its text, which may hold anything
            logger.exception("dead_on failed on a %s, which is taken for one to try again", kind)
            return False

    return is_unrecoverable
