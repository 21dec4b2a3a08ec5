"""An event loop whose time passes only while it has nothing else to do, and then at once."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import TypeVar

    _T = TypeVar("_T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waits for no time: its clock jumps to when the next timer is due.

    It is for code that does no I/O and starts no threads.
    """

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Return the seconds that have passed."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def step(self) -> None:
        """Run once what is ready."""
        self.call_soon(self.stop)
        self.run_forever()

    def run(self, awaitable: Awaitable[_T], limit: float = 36000.0) -> _T:
        """Run `awaitable` to its end.

        Raises:
            TimeoutError: it takes more than `limit` seconds of this loop's time.
        """
        return self.run_until_complete(asyncio.wait_for(awaitable, limit))


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "the loop would wait forever"
            self._loop.jump(max(timeout, 0.0))
        return ready
