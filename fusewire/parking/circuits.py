"""Looking at the breakers that messages wait for. Nothing here takes a permit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fusewire.breaker import CircuitState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusewire.breaker import BreakerRegistry, Look

_LONGEST_NAP = 1.0
"""Seconds between looks at an open circuit: it may be closed by hand before its time."""

_PROBE_NAP = 0.05
"""Seconds between looks at a half-open circuit whose places are taken: a probe may end any time."""

_SHORTEST_NAP = 0.005


class Circuits:
    """The breakers of a registry, by name.

    One that does not exist yet counts as closed: it is made, with its own settings, by the call
    that it guards, and a look must not make it with others first.
    """

    def __init__(self, registry: BreakerRegistry) -> None:
        self._registry = registry

    def look(self, dependency: str) -> Look | None:
        """Look at a breaker; None where there is none yet."""
        return self._registry.get(dependency).look() if dependency in self._registry else None

    def admits(self, dependency: str) -> bool:
        """Tell whether a call to `dependency` would be admitted now."""
        look = self.look(dependency)
        return look is None or look.admitted

    def wait(self, dependency: str) -> float:
        """Return the seconds until `dependency` may admit a call; 0 if it does now."""
        look = self.look(dependency)
        return 0.0 if look is None else look.retry_after

    def refusing(self, dependencies: Iterable[str]) -> str | None:
        """Return the first of `dependencies` that would not admit a call now."""
        return next((name for name in dependencies if not self.admits(name)), None)

    def troubled(self, dependencies: Iterable[str]) -> str | None:
        """Return the first of `dependencies` whose circuit is not closed.

        A half-open circuit that has just failed a message is no reason to call the message bad.
        """
        for name in dependencies:
            look = self.look(name)
            if look is not None and look.state in _OUTAGE:
                return name
        return None

    async def nap(self, dependency: str, stopping: asyncio.Event, limit: float) -> None:
        """Wait until it is worth looking at `dependency` again, or stopping, at most `limit` s."""
        look = self.look(dependency)
        if look is None or look.admitted:
            return
        most = _PROBE_NAP if look.state is CircuitState.HALF_OPEN else _LONGEST_NAP
        await pause(min(max(look.retry_after, _SHORTEST_NAP), most, max(limit, 0.0)), stopping)


_OUTAGE = frozenset({CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.FORCED_OPEN})


async def pause(seconds: float, stopping: asyncio.Event) -> bool:
    """Wait for `seconds` or until stopping, whichever comes first; tell whether stopping."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return False
    return True
