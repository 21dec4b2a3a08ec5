"""One dependency of a lane, from its outage until the lane is empty; no I/O."""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import TYPE_CHECKING

from fusewire.parking._line import Line

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.operation import TimedCall
    from fusewire.parking._load_sign import LoadSign
    from fusewire.parking._replay_controller import ReplayController
    from fusewire.parking._replay_measures import ReplayMeasures

_ANOTHER_OUTAGE = 1.5
"""Multiple of the recovery timeout from which on a circuit was open for so long that its dependency
was down, and not only full: its first probe failed too."""

_SOON = 5.0
"""Seconds before a paced replay in which its message may be taken.

Taken earlier, the last messages of a lane would wait with replicas whose turn is far away. To take
none costs a subscription each time, and an acknowledgement may be lost with a channel that closes.
"""

_SHORT = 0.1
"""Seconds that handlers take at most, on average, where messages are held ahead.

To fetch one takes 7 ms through a busy quorum queue. Beside a longer replay that is little, and what
is held ahead would keep others from it. They are held until handlers take twice as long.
"""

_SMOOTHING = 0.1
"""Weight of the latest replay in that average."""

_NARROW = 2.0
"""The window above which a controller does not learn, and does not ask about live calls."""


class Standing(Enum):
    """How a dependency is, as a replay sees it."""

    CLOSED = auto()
    PROBING = auto()
    """Its circuit is half open, or about to be."""
    OPEN = auto()
    PAUSED = auto()
    """Its messages fail alike though its circuit is closed, and wait."""


class Recovery:
    """When replays for one dependency of a lane begin, in one replica.

    Attributes:
        controller: finds how many replays can be borne.
        line: those that wait to begin.
        begun: whether replays are made, until the lane was empty.
        due: whether they have to begin, because the dependency was down.
        outage: the number of the lane's outage in which they began last.

    Args:
        controller: finds how many replays can be borne.
        measures: what they are compared with.
        recovery_timeout: returns the seconds for which the circuit stays open at first.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        controller: ReplayController,
        measures: ReplayMeasures,
        *,
        recovery_timeout: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.controller = controller
        self.line = Line()
        self.begun = False
        self.due = False
        self.outage = -1
        self._measures = measures
        self._recovery_timeout = recovery_timeout
        self._clock = clock
        self._open = False
        self._paused = False
        self._since: float | None = None  # when the outage began, as far as it was seen
        self._period = 0
        self._takes: float | None = None  # seconds, a handler on average
        self._short = False

    @property
    def holds_ahead(self) -> bool:
        """Whether a few messages more than its places are to be here, for the next replays.

        Not while replays are paced, and not where they take long: others may have a place for them.
        """
        return self._short and self.controller.window >= 1

    @property
    def open(self) -> bool:
        """Whether the circuit was open when it was seen last."""
        return self._open

    def see(self, standing: Standing) -> None:
        """Take note of how the dependency is now."""
        if standing is Standing.CLOSED and self._since is None and not self._paused:
            return  # as it was
        match standing:
            case Standing.OPEN:
                self._note_outage()
                if not self._open:
                    self._open = True
                    self._fall()
            case Standing.PAUSED:
                self._paused = True
            case Standing.PROBING:
                if self._note_outage():  # nobody looked while it was open
                    self._fall()
                self._resume()
            case Standing.CLOSED:
                self._resume()
                if self._since is not None:
                    self._since = None
                    self._measures.end_outage()

    def begin(self, replicas: int, *, turn: float, first: bool) -> None:
        """Begin with replays: see :meth:`ReplayController.begin`."""
        self.controller.begin(replicas, self._measures.baseline, turn=turn, first=first)
        self.begun, self.due = True, False
        self._period += 1

    def hear(self, live_calls: str) -> None:
        """Learn from a message what live calls took, in a replica that has made none itself."""
        baseline = self._measures.hear(live_calls)
        if baseline is not None:
            self.controller.hear(baseline)

    def end(self) -> None:
        """Take note that the lane is empty."""
        self.begun = self.due = False
        self._measures.forget()

    def takes_messages_in(self) -> float:
        """Return the seconds until messages may be taken; they need not begin at once."""
        if not self.controller.taking_part:
            return self.controller.starts_in
        if self.controller.window >= 1:
            return 0.0
        return max(0.0, self.controller.next_in - _SOON)

    def start(self) -> int:
        """Note that a replay begins; return what its end is to be reported with."""
        self.controller.on_start()
        return self._period

    def succeeded(self, begun: int, timed: tuple[TimedCall, ...], seconds: float) -> bool:
        """Note that a replay succeeded.

        What began before the circuit opened says nothing of the time since.

        Args:
            begun: what :meth:`start` returned for it.
            timed: its measured calls.
            seconds: how long its handler took.

        Returns:
            whether another number of messages may be wanted now.
        """
        if begun != self._period:
            self.cancelled()
            return False
        controller, measured = self.controller, self._measures.measure(timed, seconds)
        window, short = controller.window, self._short
        if measured.reference is None:
            controller.on_unknown(measured.seconds)
        else:
            live_slow = self._measures.live_slow() if window <= _NARROW else 0.0
            controller.on_success(
                measured.seconds, reference=measured.reference, live_slow=live_slow
            )
        self._note_length(seconds)
        self.line.wake()
        return short is not self._short or _changes_places(window, controller.window)

    def failed(self, begun: int, sign: LoadSign) -> None:
        """Note that a replay failed; see :meth:`succeeded`."""
        if begun != self._period:
            self.cancelled()
            return
        self.controller.on_failure(sign.kind, sign.retry_after)
        self.line.wake()

    def cancelled(self) -> None:
        """Note that a replay that was to begin made no call."""
        self.controller.cancelled()
        self.line.wake()

    def _note_length(self, seconds: float) -> None:
        if self._takes is None:
            self._takes = seconds
        self._takes += _SMOOTHING * (seconds - self._takes)
        self._short = self._takes < (2 * _SHORT if self._short else _SHORT)

    def _fall(self) -> None:
        self._period += 1
        self.controller.opened()

    def _note_outage(self) -> bool:
        """Note that the circuit is not closed; return whether that is news."""
        if not self.begun:
            self.due = True
        if self._since is not None:
            return False
        self._since = self._clock()
        self._measures.begin_outage()
        return True

    def _resume(self) -> None:
        lasted = 0.0 if self._since is None else self._clock() - self._since
        if self._open and lasted > _ANOTHER_OUTAGE * self._recovery_timeout():
            self.due = True
        if self._paused:
            self.due = True
        self._open = self._paused = False


def _changes_places(before: float, after: float) -> bool:
    """Return whether a window has another number of places, or is paced or not any more."""
    if before == after:  # as at the top, where most replays of a long recovery are
        return False
    return math.ceil(before) != math.ceil(after) or (before < 1) != (after < 1)
