"""The course of a run: its clock, its steps, and when the server was up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fusewire.breaker import CircuitState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusewire.demo._config import Plan
    from fusewire.demo._tally import Tally

UP: Final = "up"
DOWN: Final = "down"

_DRAIN_GUESS = 0.35  # of the outage: how long it takes to drain, to lay out a picture beforehand


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time in which something was in one state, in seconds since the load began."""

    begin: float
    end: float
    state: str


class Course:
    """How a run goes. Its times are in seconds since the load began.

    Args:
        plan: how it is to go.
        tally: what the processes report.

    Attributes:
        steps: what was done when, in words.
        outage: when the server was killed and when it was back, as far as it has come to that.
    """

    def __init__(self, plan: Plan, tally: Tally) -> None:
        self.plan = plan
        self.tally = tally
        self.steps: list[tuple[float, str]] = []
        self._server: list[tuple[float, str]] = []
        self._ended: float | None = None

    @property
    def began(self) -> bool:
        """Whether the load has begun."""
        return bool(self.tally.begin)

    def begin(self) -> None:
        """Begin, now."""
        self.tally.begin = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the load began; 0 before, and when it ended after that."""
        if self._ended is not None:
            return self._ended
        return time.monotonic() - self.tally.begin if self.began else 0.0

    def stop(self) -> None:
        """Stop the clock: the run has ended."""
        self._ended = self.now

    def step(self, what: str) -> float:
        """Note a step, and return when it was."""
        at = self.now
        self.steps.append((at, what))
        return at

    def note_server(self, state: str) -> None:
        """Note that the server is up or down from now on."""
        self._server.append((self.now, state))

    @property
    def expected_end(self) -> float:
        """When the run will end if all goes well, not before now; or when it has ended."""
        if self._ended is not None:
            return self._ended
        plan = self.plan
        return max(2 * plan.healthy + plan.outage * (1 + _DRAIN_GUESS), self.now)

    @property
    def server_state(self) -> str:
        """Whether the server is up or down."""
        return self._server[-1][1] if self._server else UP

    def server(self, end: float) -> list[Stretch]:
        """Return when the server was up and down, until `end`."""
        return _stretches(UP, self._server, end)

    def circuit(self, process: str, end: float) -> list[Stretch]:
        """Return the states of a process's circuit, until `end`."""
        changes = ((at, str(state)) for at, state in self.tally.changes_of(process))
        return _stretches(str(CircuitState.CLOSED), changes, end)

    def timeline(self) -> list[tuple[float, str]]:
        """Return what happened, in order."""
        return sorted([*self.steps, *self.tally.turns])


def _stretches(first: str, changes: Iterable[tuple[float, str]], end: float) -> list[Stretch]:
    found = []
    begin, state = 0.0, first
    for at, new in changes:
        if at > begin and new != state:
            found.append(Stretch(begin, at, state))
            begin = at
        state = new
    found.append(Stretch(begin, end, state))
    return found
