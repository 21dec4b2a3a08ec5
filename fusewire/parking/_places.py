"""How many deliveries are worked on at a time; the number may change."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Places:
    """Places, each taken for the length of a block. The first to wait is the first to begin.

    Args:
        number: of places, 1 or more.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def resize(self, number: int) -> None:
        """Have `number` places. If more are taken, the next block begins when enough have ended."""
        self._number = number
        self._fill()

    async def __aenter__(self) -> Self:
        """Wait for a place, and take it."""
        if self._taken < self._number and not self._waiting:
            self._taken += 1
            return self
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled():  # it got its place at the moment of its cancellation
                self._leave()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Make the place free."""
        self._leave()

    def _leave(self) -> None:
        self._taken -= 1
        if self._waiting:
            self._fill()

    def _fill(self) -> None:
        while self._waiting and self._taken < self._number:
            turn = self._waiting.popleft()
            if not turn.done():  # else it was cancelled, and its task has not run since
                self._taken += 1
                turn.set_result(None)
