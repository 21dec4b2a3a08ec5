"""Handling one message with nothing else in flight in the process.

What kills its process is found that way: a message that came back several times may only have
been beside the one that did it.
"""

from __future__ import annotations

import os
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

_LONGEST_ALONE = 60.0
"""Seconds that it keeps others from beginning once it runs: it may not kill its process, but hang.

From then on a crash takes others with it, and may be theirs. It only makes all of them suspects.
"""

_HANGS = 600.0
"""Seconds after which a handler is taken for one that never ends, and is not waited for."""


class Solitude:
    """Admits attempts side by side, or one by itself.

    It may be used from several event loops in several threads: each change is one step of a dict or
    one assignment, and both sides write before they read.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._running: dict[object, float] = {}
        self._claim: _Claim | None = None
        self._arrived = 0.0

    def enter(self, attempt: object) -> bool:
        """Begin `attempt`; False while one waits to be alone, or is."""
        now = self._now()
        self._running[attempt] = now
        claim = self._claim
        if claim is None or claim.shared:
            return True
        if claim.began is not None and now - claim.began >= _LONGEST_ALONE:
            claim.asked = True
        self._running.pop(attempt, None)
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
        claim, now = self._claim, self._now()
        if claim is None:
            return None
        waited = now - claim.since
        if any(now - since < _HANGS for since in list(self._running.values())):
            return None if waited >= _LONGEST_WAIT else False
        if now - self._arrived < _QUIET and waited < _LONGEST_QUIET:
            return False
        claim.began = now
        return True

    def asked(self, attempt: object) -> bool:
        """Return whether `attempt` has been alone for so long that others may begin beside it."""
        claim = self._claim
        return claim is not None and claim.attempt is attempt and claim.asked

    def share(self, attempt: object) -> None:
        """Let others begin beside `attempt`: nothing says any more that it is alone."""
        claim = self._claim
        if claim is not None and claim.attempt is attempt:
            claim.shared = True

    def leave(self, attempt: object) -> None:
        """End `attempt`, or its claim."""
        self._running.pop(attempt, None)
        if self._claim is not None and self._claim.attempt is attempt:
            self._claim = None

    def forget(self) -> None:
        """Forget all: this process is a child, and none of it is in flight here."""
        self._running.clear()
        self._claim = None


class _Claim:
    """The attempt that is to be alone, and is since it has begun, until it is shared."""

    __slots__ = ("asked", "attempt", "began", "shared", "since")

    def __init__(self, attempt: object, since: float) -> None:
        self.attempt = attempt
        self.since = since
        self.began: float | None = None
        self.asked = False
        self.shared = False


process = Solitude()
"""The one of this process, whichever consumers it has."""

os.register_at_fork(after_in_child=process.forget)
