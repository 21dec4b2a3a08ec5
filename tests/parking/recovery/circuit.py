"""A circuit with the defaults of a breaker, in virtual time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from tests.parking.recovery.events import Events

FAILURES, OPEN_FOR, PROBES = 5, 30.0, 3
"""Failures in a row that open it, seconds that it is open, probes that close it."""

SPREAD = 0.05
"""Seconds over which replicas and clients spread their first probes."""


class Circuit:
    """Closed, open or half open; results of a former state do not count."""

    __slots__ = (
        "_events",
        "_failures",
        "_opens",
        "_probes",
        "_rng",
        "_successes",
        "generation",
        "open_until",
    )

    def __init__(self, events: Events, rng: random.Random) -> None:
        self._events = events
        self._rng = rng
        self._failures = self._probes = self._successes = self._opens = 0
        self.open_until: float | None = None
        """None while it is closed. It is half open after this time."""
        self.generation = 0

    @property
    def opens(self) -> int:
        """How often it opened by failures."""
        return self._opens

    def open(self, seconds: float) -> None:
        self.generation += 1
        self._failures = self._probes = self._successes = 0
        self.open_until = self._events.now + seconds + self._rng.random() * SPREAD

    def wait(self) -> float:
        """Return seconds until it admits a call: 0 now, infinity when a probe has ended."""
        if self.open_until is None:
            return 0.0
        if self._events.now < self.open_until:
            return self.open_until - self._events.now
        return math.inf if self._probes >= PROBES else 0.0

    def admit(self) -> int:
        """Note that a call begins; return the generation it belongs to."""
        if self.open_until is not None:
            self._probes += 1
        return self.generation

    def settle(self, generation: int, *, ok: bool) -> bool:
        """Note that a call ended; return whether that opened the circuit."""
        if generation != self.generation:
            return False
        if ok:
            self._failures = 0
            if self.open_until is not None:
                self._probes -= 1
                self._successes += 1
                if self._successes >= PROBES:
                    self.open_until = None
                    self.generation += 1
            return False
        self._failures += 1
        if self.open_until is None and self._failures < FAILURES:
            return False
        self._opens += 1
        self.open(OPEN_FOR)
        return True
