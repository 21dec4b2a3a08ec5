"""How many replays may run at a time: one at first, twice as many after each healthy window.

Its interface is a place, taken by ``async with``, and what happens in it: a replay begins, and it
succeeds or fails. How the number of places follows from that is known here only.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class SlowStart:
    """Places for replays, given in the order of the requests: ``async with slow_start``.

    A recovered dependency is not to be met by all that has piled up: the window begins with one
    place, doubles when as many replays as it has places have succeeded, and falls back to one on
    a failure. What began before a failure and succeeds after it says nothing of the time since.

    Args:
        most: replays that may run at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._falls = 0
        self._outage = False
        self._window = 1
        self._taken = 0
        self._succeeded = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def window(self) -> int:
        """How many places there are now."""
        return self._window

    def succeeded(self, begun: int) -> None:
        """Count a replay that was handled, unless the window has fallen since it began.

        Args:
            begun: what :meth:`begins` returned for it.
        """
        if begun != self._falls:
            return
        self._succeeded += 1
        if self._succeeded >= self._window:
            self._window = min(self._window * 2, self._most)
            self._succeeded = 0
            self._wake()

    def failed(self) -> None:
        """Begin again with one place."""
        self._falls += 1
        self._window = 1
        self._succeeded = 0

    def begins(self, *, outage: bool) -> int:
        """Note that a replay begins, and whether in an outage, as a probe of a circuit.

        That may be the first sign that the circuit was open: while all places were taken, nobody
        looked at it.

        Returns:
            what :meth:`succeeded` is given if it is handled.
        """
        if outage and not self._outage:
            self.failed()
        self._outage = outage
        return self._falls

    def open(self) -> None:
        """Let all replays through: the consumer stops, and each replay sees that."""
        self._most = self._window = sys.maxsize
        self._wake()

    @property
    def crowded(self) -> bool:
        """Whether more hold a place than there are places, since a failure took some away."""
        return self._taken > self._window

    async def stand_in_line_again(self) -> None:
        """Give the place that one holds to others, and wait until one has it again."""
        self._give_back()
        try:
            await self.__aenter__()
        except asyncio.CancelledError:
            self._taken += 1  # leaving the block gives a place back
            raise

    async def __aenter__(self) -> None:
        """Take a place, when it is there."""
        if self._taken < self._window and not self._waiting:
            self._taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back()  # the place was given in the moment of the cancellation
            else:
                self._waiting.remove(turn)
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the place back."""
        self._give_back()

    def _give_back(self) -> None:
        self._taken -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._taken < self._window:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
