"""One breaker per name: whoever asks for a dependency shares its circuit."""

from __future__ import annotations

import functools
import logging
import threading
import time
from typing import TYPE_CHECKING

from fusewire.breaker.calls import CircuitBreaker
from fusewire.breaker.settings import BreakerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)


class BreakerRegistry:
    """Breakers by name, made when they are first asked for.

    Args:
        settings: what breakers are made with, unless :meth:`get` is told otherwise.
        clock: monotonic seconds, for all of them.
    """

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings or BreakerSettings()
        self._clock = clock
        self._lock = threading.Lock()
        self._breakers: dict[str, CircuitBreaker] = {}
        self._differed: set[str] = set()

    def get(self, name: str, settings: BreakerSettings | None = None) -> CircuitBreaker:
        """Return the breaker called `name`, made now if there is none.

        `settings` apply when it is made. If it exists with others, it keeps them, and the log says
        so once.
        """
        with self._lock:
            breaker = self._breakers.get(name)
            if breaker is None:
                breaker = CircuitBreaker(
                    name, settings=settings or self._settings, clock=self._clock
                )
                self._breakers[name] = breaker
            differs = (
                settings is not None and settings != breaker.settings and name not in self._differed
            )
            if differs:
                self._differed.add(name)
        if differs:
            logger.warning(
                "circuit %r keeps the settings that it was made with: %r differ", name, settings
            )
        return breaker

    def __iter__(self) -> Iterator[CircuitBreaker]:
        with self._lock:
            return iter(tuple(self._breakers.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._breakers

    def __len__(self) -> int:
        return len(self._breakers)


@functools.cache
def default_registry() -> BreakerRegistry:
    """Return the registry that the process shares."""
    return BreakerRegistry()
