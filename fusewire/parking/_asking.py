"""Calling the functions that a user gives beside the handler."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from fusewire.errors import FusewireError

if TYPE_CHECKING:
    from collections.abc import Callable

_Argument = TypeVar("_Argument")
_Answer = TypeVar("_Answer")


class FunctionExitError(FusewireError):
    """A function of the user's raised what would end the task or the process, had it been let out.

    ``sys.exit()`` does, and so does the result of a future that was cancelled.
    """


def ask(setting: str, function: Callable[[_Argument], _Answer], argument: _Argument) -> _Answer:
    """Call `function(argument)` on the event loop; whatever it raises is an ``Exception``.

    Args:
        setting: the name under which the user gave the function.
        function: it.
        argument: what it is called with.

    Raises:
        Exception: what the function raised.
        FunctionExitError: it raised what is no ``Exception``, which is the cause.
        KeyboardInterrupt: Ctrl-C, for which Python raises it on the main thread only.
    """
    try:
        return function(argument)
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _on_main_thread():
            raise
        raise FunctionExitError(f"{setting} raised {error!r}") from error


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
