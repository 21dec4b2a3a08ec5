"""Whether anybody forwards what waits in a lane, as far as its depth shows; no I/O."""

from __future__ import annotations

PATIENCE = 60.0
"""Seconds after which a lane is stuck that does not shrink while its circuit is closed."""

SAY_AGAIN = 600.0
"""Seconds between two lines about it."""


class LaneProgress:
    """Follows the depth of a lane while its circuit is closed.

    Attributes:
        stuck: whether calls wait, and their number has not fallen for a minute.
    """

    def __init__(self) -> None:
        self.stuck = False
        self._last: tuple[float, int] | None = None  # when it was counted last, and what it was
        self._since = 0.0  # when it fell last, or began
        self._said_at: float | None = None

    def note(self, ready: int | None, at: float, *, closed: bool) -> float | None:
        """Note how many calls wait.

        Args:
            ready: their number; None if it is not known.
            at: when they were counted, in monotonic seconds.
            closed: whether their circuits are closed, as far as that is known.

        Returns:
            For how many seconds it has been stuck, if that is to be said now.
        """
        if not ready or not closed:
            self.stuck, self._last, self._said_at = False, None, None
            return None
        if self._last is None or ready < self._last[1]:
            self.stuck, self._since, self._said_at = False, at, None
        elif at == self._last[0]:
            return None
        self._last = at, ready
        self.stuck = at - self._since >= PATIENCE
        if not self.stuck or (self._said_at is not None and at - self._said_at < SAY_AGAIN):
            return None
        self._said_at = at
        return at - self._since
