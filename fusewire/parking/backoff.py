"""Waiting longer each time, when a broker does not answer."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

from fusewire.parking.circuits import pause

if TYPE_CHECKING:
    import asyncio

    from fusewire.errors import BrokerError

_FIRST = 0.1  # seconds
_MOST = 5.0


def level_of(error: BrokerError) -> int:
    """Return how loudly to log `error`: a warning, unless the broker has said so for all."""
    return logging.DEBUG if error.told else logging.WARNING


class Backoff:
    """Exponential back-off from 0.1 s on, half of it jitter (AWS Architecture Blog, 2015).

    Args:
        longest: seconds that it grows to.
    """

    def __init__(self, longest: float = _MOST) -> None:
        self._longest = longest
        self._next = _FIRST

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._next = _FIRST

    async def wait(self, stopping: asyncio.Event) -> bool:
        """Wait; tell whether stopping."""
        # Half of it is certain, or a run of small draws would hammer a broker that is down.
        seconds = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        self._next = min(self._next * 2, self._longest)
        return await pause(seconds, stopping)
