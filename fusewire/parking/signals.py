"""Ending on SIGTERM and SIGINT: all the consumers of a process, not only the last to start."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_stops: list[Callable[[], None]] = []
_before: dict[int, Any] = {}


@contextmanager
def until_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT within the block.

    Only on the main thread: elsewhere Python allows no handlers, and the block runs without. What
    handled the signals before does so again after the last block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    if not _stops:
        for number in _SIGNALS:
            _before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, _stop_all)
    _stops.append(stop)
    try:
        yield
    finally:
        _stops.remove(stop)
        if not _stops:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, _before.pop(number))


def _stop_all() -> None:
    for stop in tuple(_stops):
        stop()
