"""How often a circuit went from one state to another, and how long it admitted no calls."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fusewire.breaker._states import CircuitState


@dataclass(frozen=True, slots=True)
class Transition:
    """How often a circuit went from one state to another.

    Attributes:
        old: the state that it left.
        new: the state that it entered.
        count: how often it did so.
    """

    old: CircuitState
    new: CircuitState
    count: int = 0


OUTAGE = (CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.FORCED_OPEN)
"""The states of a circuit that does not simply admit calls."""

AUTOMATIC = (
    Transition(CircuitState.CLOSED, CircuitState.OPEN),
    Transition(CircuitState.OPEN, CircuitState.HALF_OPEN),
    Transition(CircuitState.HALF_OPEN, CircuitState.CLOSED),
    Transition(CircuitState.HALF_OPEN, CircuitState.OPEN),
)
"""The transitions that a circuit makes on its own, none of them made yet.

They are always counted, from 0 on: rates over a counter that appears with a value of 1 miss that
first one."""


class StateTotals:
    """What a circuit counts of its states.

    Attributes:
        transitions: the transitions that have happened and those of :data:`AUTOMATIC`.
        since: when the state changed last, by the clock.
        log_again_at: when the log may say again that the circuit is still open.
    """

    __slots__ = ("_open_time", "_outage", "log_again_at", "since", "transitions")

    def __init__(self, now: float) -> None:
        self.since = now
        self.log_again_at = -math.inf
        # When the latest outage began, and how many calls had been rejected before.
        self._outage = (now, 0)
        self.load(AUTOMATIC, 0.0, now)

    def load(self, transitions: tuple[Transition, ...], open_seconds: float, now: float) -> None:
        """Continue from other totals."""
        self.transitions = transitions
        # Seconds, and until when they are counted. One value, so that nobody sees half of it.
        self._open_time = (open_seconds, now)

    def change(
        self, old: CircuitState, new: CircuitState, now: float, rejected: int
    ) -> tuple[float | None, int]:
        """Count a transition.

        Args:
            old: the state before.
            new: the state after.
            now: the time.
            rejected: how many calls have been rejected since the circuit was made.

        Returns:
            For how many seconds there has been an outage, None if there was none, and how many
            calls were rejected in it.
        """
        self.since = now
        self.transitions = _with_one_more(self.transitions, old, new)
        if old not in OUTAGE:
            self._outage = (now, rejected)
            return None, 0
        began, before = self._outage
        return max(now - began, 0.0), max(rejected - before, 0)

    def count_open_time(self, now: float, until: float) -> float:
        """Return the seconds in which calls were not admitted. They never decrease.

        Args:
            now: the time; a thread may pass one that is earlier than another's.
            until: until when calls are not admitted. Anything earlier than `now` if they are.
        """
        seconds, counted = self._open_time
        seconds += max(min(now, until) - counted, 0.0)
        self._open_time = (seconds, max(now, counted))
        return seconds


def _with_one_more(
    transitions: tuple[Transition, ...], old: CircuitState, new: CircuitState
) -> tuple[Transition, ...]:
    for place, each in enumerate(transitions):
        if each.old is old and each.new is new:
            more = replace(each, count=each.count + 1)
            return (*transitions[:place], more, *transitions[place + 1 :])
    return (*transitions, Transition(old, new, 1))
