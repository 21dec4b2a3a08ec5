"""Looking at what messages wait for, circuits and pauses. Nothing here takes a permit."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from fusewire.breaker import CircuitState, StateChanged
from fusewire.parking._recovery import Standing
from fusewire.parking._waiting import wait_any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fusewire.breaker import Admission, BreakerRegistry, Event
    from fusewire.parking._pauses import Pauses

_LONGEST_NAP = 1.0
"""Seconds between looks at an open circuit, which reports when it is closed by hand; but a
registry with a limit may put another in its place."""

_PROBE_NAP = 0.05
"""Seconds between looks at a half-open circuit whose places are taken: one may be given back, and
of that there is no event."""

_SHORTEST_NAP = 0.005

_SPREAD = 0.05
"""Seconds over which those spread who wait for the end of an open time.

Replicas whose circuits were opened by one outage would all probe in the same moment. It is little
beside an open time, and much beside a probe.
"""


AFTER_REJECTION = 0.02
"""Seconds before the next look when a look admitted and the circuit then did not: a race lost."""


class Circuits:
    """The breakers of a registry, by name, and the pauses of what fails in spite of them.

    A breaker that does not exist yet counts as closed: it is made, with its own settings, by the
    call that it guards, and a look must not make it with others first. A dependency whose messages
    pause is as good as open.

    Args:
        registry: where the breakers are.
        pauses: which dependencies have to wait although their circuits are closed.
        chance: numbers from 0 and below 1, for the spread.
    """

    def __init__(
        self,
        registry: BreakerRegistry,
        pauses: Pauses,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._registry = registry
        self._pauses = pauses
        self._chance = chance

    def look(self, dependency: str) -> Admission | None:
        """Look at a breaker; None where there is none yet."""
        breaker = self._registry.find(dependency)
        return None if breaker is None else breaker.look()

    def knows(self, dependency: str) -> bool:
        """Return whether there is a breaker for `dependency`, which can be looked at."""
        return dependency in self._registry

    def is_open(self, dependency: str) -> bool:
        """Return whether `dependency` is open: not only short of a place for one more call."""
        look = self.look(dependency)
        return (look is not None and look.state in _OPEN) or self._pauses.wait(dependency) > 0

    def admits(self, dependency: str, *, patience: float = 0.0, tried: bool = False) -> bool:
        """Return whether a call to `dependency` would be admitted now.

        Args:
            dependency: a breaker's name.
            patience: seconds for which the probe of a pause is left to others.
            tried: whether the message has failed before and comes back from its delay.
        """
        if self._pauses.wait(dependency, patience=patience, tried=tried) > 0:
            return False
        look = self.look(dependency)
        return look is None or look.admitted

    def standing(self, dependency: str) -> Standing:
        """Return how `dependency` is, for its replay."""
        return self._standing(dependency, self.look(dependency))

    def glance(self, dependency: str) -> tuple[Standing, bool]:
        """Return how `dependency` is, and whether it would admit a call now, by one look."""
        look = self.look(dependency)
        admits = (look is None or look.admitted) and self._pauses.wait(dependency) <= 0
        return self._standing(dependency, look), admits

    def _standing(self, dependency: str, look: Admission | None) -> Standing:
        if look is not None and look.state in _OPEN:
            return Standing.OPEN
        if self._pauses.holds(dependency):
            return Standing.PAUSED
        half_open = look is not None and look.state is CircuitState.HALF_OPEN
        return Standing.PROBING if half_open else Standing.CLOSED

    def recovery_timeout(self, dependency: str) -> float:
        """Return the seconds for which the circuit of `dependency` stays open at first."""
        breaker = self._registry.find(dependency)
        return 0.0 if breaker is None else breaker.settings.recovery_timeout

    def wait(self, dependency: str) -> float:
        """Return the seconds until `dependency` may admit a call; 0 if it does now."""
        look = self.look(dependency)
        wait = self._pauses.wait(dependency)
        return wait if look is None else max(wait, look.retry_after)

    def first_rejecting(
        self, dependencies: Iterable[str], *, patience: float = 0.0, tried: bool = False
    ) -> str | None:
        """Return the first of `dependencies` that would not admit a call now.

        Args:
            dependencies: names of breakers.
            patience: seconds for which the probe of a pause is left to others.
            tried: whether the message has failed before and comes back from its delay.
        """
        for name in dependencies:
            if not self.admits(name, patience=patience, tried=tried):
                return name
        return None

    def first_not_closed(self, dependencies: Iterable[str]) -> str | None:
        """Return the first of `dependencies` whose circuit is not closed.

        A half-open circuit that has just failed a message is no reason to call the message bad.
        """
        for name in dependencies:
            look = self.look(name)
            if look is not None and look.state in _OUTAGE:
                return name
        return None

    def holding(self, dependencies: Iterable[str]) -> tuple[str, ...]:
        """Return those of `dependencies` whose messages wait. Safe to call from any thread."""
        held = Standing.OPEN, Standing.PAUSED
        return tuple(name for name in dependencies if name and self.standing(name) in held)

    async def wait_for_change(self, dependency: str, stopping: asyncio.Event, limit: float) -> None:
        """Wait until it is worth looking at `dependency` again, or stopping, at most `limit` s.

        A change of its state ends the wait at once, whichever thread it happens on.
        """
        changed = asyncio.Event()
        if (paused := self._pauses.wait(dependency)) > 0:
            forget = self._pauses.watch(changed.set)
            try:
                seconds = min(max(paused, _SHORTEST_NAP), _LONGEST_NAP, max(limit, 0.0))
                await wait_any(changed, stopping, seconds=seconds)
            finally:
                forget()
            return
        if (breaker := self._registry.find(dependency)) is None:
            return
        loop = asyncio.get_running_loop()

        def wake(_: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits
                loop.call_soon_threadsafe(changed.set)

        forget = breaker.add_listener(wake, StateChanged)
        try:
            look = breaker.look()  # only now: the listener missed what happened before
            if not look.admitted:
                wait = min(self._worth(look), max(limit, 0.0))
                await wait_any(changed, stopping, seconds=wait)
        finally:
            forget()

    def _worth(self, look: Admission) -> float:
        """Return the seconds after which to look again when nothing was heard until then."""
        left = max(look.retry_after, _SHORTEST_NAP)
        if look.state is CircuitState.HALF_OPEN:
            return min(left, _PROBE_NAP)
        return min(left, _LONGEST_NAP) + self._chance() * _SPREAD


_OPEN = frozenset({CircuitState.OPEN, CircuitState.FORCED_OPEN})
_OUTAGE = _OPEN | {CircuitState.HALF_OPEN}
