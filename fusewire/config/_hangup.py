"""Calls a function on SIGHUP, beside whatever handles the signal already."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class HangupHandler:
    """Handles SIGHUP by a function, and then calls the handler that was there before.

    The handler runs on the main thread, between any two instructions of it. So the function must
    not wait for a lock.

    Args:
        then: called when the signal comes.
    """

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then
        self._former: Any = None
        self._active = False

    def begin(self) -> None:
        """Handle the signal from now on.

        Raises:
            SettingsError: this is not the main thread, or the handler that is there cannot be kept.
        """
        former = signal.getsignal(_number())
        if former is None:
            raise SettingsError(
                "sighup must be False here, got True: the handler of SIGHUP that is there was made "
                "by a library in C and could not be called beside ours"
            )
        self._former = former
        try:
            signal.signal(_number(), self)
        except ValueError:
            raise SettingsError(
                "sighup=True must be used on the main thread, because Python allows handlers of "
                "signals only there: enter the watch in it, or leave sighup out and call look()"
            ) from None
        self._active = True

    def end(self) -> None:
        """Handle it no more. The former handler is there again, unless somebody came later."""
        self._active = False
        current: object = signal.getsignal(_number())
        if current is self:
            # Outside the main thread this one stays, and only passes the signal on.
            with contextlib.suppress(ValueError):
                signal.signal(_number(), self._former)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal. Python calls it."""
        if self._active:
            self._then()
        if callable(self._former):
            self._former(number, frame)
        elif not self._active and self._former is signal.SIG_DFL:
            # Somebody who came later has put this one back.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def has_hangup() -> bool:
    """Return whether this system has the signal. Windows has not."""
    return hasattr(signal, "SIGHUP")


def _number() -> Any:
    return signal.SIGHUP
