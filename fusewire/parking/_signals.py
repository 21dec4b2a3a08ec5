"""Ending on SIGTERM and SIGINT: all the consumers of a process, beside whatever else ends on them.

A web server or a program of the user's may wait for the same signals. Ours are handled by
:func:`signal.signal`, and the handler that was there before is called as well. Asyncio's own
handlers (``loop.add_signal_handler``) run too: they are woken by a file descriptor, which stays as
it is. Where nobody has set one, ours wakes the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def until_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT within the block; a second SIGINT ends the block at once.

    Only on the main thread: elsewhere Python allows no handlers, and the block runs without. What
    handled the signals before is called too, and alone again after the last block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    block = _Block(stop)
    with contextlib.ExitStack() as handlers:
        _blocks.append(block)
        handlers.callback(_leave, block)
        if not _wakeups:
            _wakeups.append(_Wakeup(block.loop))
        for number in _SIGNALS:
            handlers.enter_context(_handling(number, block))
        yield


class _Block:
    """One consumer that runs: how it is stopped, and how it is cut off."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()

    def cut_off(self) -> None:
        if self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self.loop.call_soon_threadsafe(self._task.cancel)


class _Wakeup:
    """Wakes the event loop when a signal comes, as ``loop.add_signal_handler`` does for its own.

    Python calls a handler on the main thread, between two instructions. The event loop may wait
    for something at that moment. A signal interrupts the wait if it strikes the main thread, but it
    may strike another one, or just before the wait begins. Then nothing would happen until the loop
    wakes for another reason.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._former = signal.set_wakeup_fd(-1)
        if self._former != -1:  # wakes this loop already, because it belongs to the main thread too
            signal.set_wakeup_fd(self._former)
            return
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.settimeout(0)
        loop.add_reader(self._reader, self._read)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)

    def close(self) -> None:
        """Wake it no more."""
        if self._former != -1:
            return
        current = signal.set_wakeup_fd(-1)
        if current not in {-1, self._writer.fileno()}:  # of somebody who came later
            signal.set_wakeup_fd(current)
        if not self._loop.is_closed():
            self._loop.remove_reader(self._reader)
        self._reader.close()
        self._writer.close()


_blocks: list[_Block] = []
_wakeups: list[_Wakeup] = []
"""At most one, for all blocks."""


def _leave(block: _Block) -> None:
    _blocks.remove(block)
    if not _blocks:
        while _wakeups:
            _wakeups.pop().close()


class _Handler:
    """Handles one signal for all blocks, and calls the handler that it took the place of."""

    def __init__(self, former: Any) -> None:
        self.former = former
        self.users: list[_Block] = []
        self._interrupts = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.users:
            # A server that started after the blocks had this handler in its keeping, has ended and
            # put it back.
            self._pass_on(number, frame)
            return
        for block in tuple(_blocks):
            block.stop()
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            if not _interrupts_the_program(self.former):
                for block in tuple(_blocks):
                    block.cut_off()
            self._pass_on(number, frame)
        elif callable(self.former) and not _interrupts_the_program(self.former):
            self.former(number, frame)

    def leave(self, number: int, block: _Block) -> None:
        """Put the former handler back after the last block, unless another has taken the place."""
        self.users.remove(block)
        current: object = signal.getsignal(number)
        if not self.users and current is self:
            signal.signal(number, self.former)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if callable(self.former):
            self.former(number, frame)
        elif self.former == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextmanager
def _handling(number: int, block: _Block) -> Iterator[None]:
    current = signal.getsignal(number)
    if current is None:  # one in C, which could be neither called nor put back
        yield
        return
    handler = current if isinstance(current, _Handler) else _Handler(current)
    signal.signal(number, handler)
    handler.users.append(block)
    try:
        yield
    finally:
        handler.leave(number, block)


def _interrupts_the_program(handler: Any) -> bool:
    """Return whether `handler` is Python's own for Ctrl-C or that of `asyncio.run`.

    They end the program without waiting for anybody, which is what a second Ctrl-C asks for.
    """
    function = handler.func if isinstance(handler, functools.partial) else handler
    return function is signal.default_int_handler or isinstance(
        getattr(function, "__self__", None), asyncio.Runner
    )
