"""Handling one message with nothing else in flight in the process.

What kills its process is found that way: a message that came back several times may only have
been beside the one that did it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_QUIET = 0.25
"""Seconds without another such message arriving, before one begins.

They were suspected together and come back together. The others are moved away first, or they would
come back from a crash that is not theirs.
"""

_LONGEST_QUIET = 2.0
"""Seconds after which it begins although others keep arriving."""

_LONGEST_WAIT = 60.0
"""Seconds that it keeps others from beginning, while handlers that began before it do not end."""


class Solitude:
    """Admits attempts side by side, or one by itself.

    It may be used from several event loops in several threads: each change is one step of a set or
    one assignment, and both sides write before they read.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._running: set[object] = set()
        self._claim: _Claim | None = None
        self._arrived = 0.0

    def enter(self, attempt: object) -> bool:
        """Begin `attempt`; False while one waits to be alone, or is."""
        self._running.add(attempt)
        if self._claim is None:
            return True
        self._running.discard(attempt)
        return False

    def claim(self, attempt: object) -> bool:
        """Let nothing begin before `attempt` has been alone; False if another one has claimed."""
        self._arrived = self._now()
        if self._claim is not None:
            return False
        self._claim = _Claim(attempt, self._arrived)
        return True

    def alone(self) -> bool | None:
        """Return whether the one that claimed may begin; None if it has waited for too long."""
        if self._claim is None:
            return None
        waited = self._now() - self._claim.since
        if self._running:
            return None if waited >= _LONGEST_WAIT else False
        return self._now() - self._arrived >= _QUIET or waited >= _LONGEST_QUIET

    def leave(self, attempt: object) -> None:
        """End `attempt`, or its claim."""
        self._running.discard(attempt)
        if self._claim is not None and self._claim.attempt is attempt:
            self._claim = None


class _Claim:
    """The attempt that is to be alone."""

    __slots__ = ("attempt", "since")

    def __init__(self, attempt: object, since: float) -> None:
        self.attempt = attempt
        self.since = since


process = Solitude()
"""The one of this process, whichever consumers it has."""
