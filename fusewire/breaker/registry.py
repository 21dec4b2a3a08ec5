"""One breaker per name: whoever asks for a dependency shares its circuit."""

from __future__ import annotations

import logging
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fusewire._locks import make_lock
from fusewire.breaker.calls import CircuitBreaker
from fusewire.breaker.settings import BreakerSettings, check_settings
from fusewire.breaker.states import CircuitState
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

logger = logging.getLogger(__name__)


class BreakerRegistry:
    """Breakers by name, made when they are first asked for.

    Args:
        settings: what breakers are made with, unless `overrides` or :meth:`get` say otherwise.
        overrides: settings by name or by pattern, such as ``"/payments.*"``. An exact name comes
            first, then the longest pattern that fits. ``*``, ``?`` and ``[…]`` are as in a shell.
        limit: breakers kept at most; ``None`` keeps all. When one too many is made, another goes:
            one that is closed and idle first, one that rejects calls last.
        clock: monotonic seconds, for all of them.

    Attributes:
        generation: a number that changes whenever a breaker goes. Whoever keeps a breaker that
            :meth:`get` gave has still the right one while the number is the one from before.

    Raises:
        SettingsError: `limit` is no whole number of at least 1, or what should be settings is not.
    """

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        *,
        overrides: Mapping[str, BreakerSettings] | None = None,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if limit is not None and not _is_limit(limit):
            raise SettingsError(
                f"limit must be a whole number of at least 1, or None, got {limit!r}"
            )
        self._settings = BreakerSettings()
        self._overrides: dict[str, BreakerSettings] = {}
        self._take(settings, overrides)
        self._limit = limit
        self._clock = clock
        # No property: it is compared on every guarded call.
        self.generation = 0
        self._lock = make_lock()
        # The one asked for the longest time ago comes first.
        self._breakers: dict[str, CircuitBreaker] = {}
        # What `get` was told for a name, which a later `configure` respects.
        self._told: dict[str, BreakerSettings] = {}
        self._differed: set[str] = set()

    def get(self, name: str, settings: BreakerSettings | None = None) -> CircuitBreaker:
        """Return the breaker called `name`, made now if there is none.

        `settings` apply when it is made, unless an override has exactly this name. If it was made
        with others, it keeps them, and the log says so once.
        """
        if settings is not None:
            check_settings(settings, f"settings of circuit {name!r}")
        while True:
            with self._lock:
                if self._has_room_for(name):
                    breaker = self._get_or_make(name, settings)
                    differs = self._differs(breaker, settings)
                    break
                crowd = tuple(self._breakers.values())
            # Not under the lock: a look may tell listeners, and they may ask the registry.
            self.remove(_least(crowd).name)
        if differs:
            logger.warning(
                "circuit %r keeps the settings that it was made with: %r differ", name, settings
            )
        return breaker

    def configure(
        self,
        settings: BreakerSettings | None = None,
        overrides: Mapping[str, BreakerSettings] | None = None,
    ) -> None:
        """Replace the settings of all breakers in place; their state and windows are kept.

        Breakers that :meth:`get` was given settings for keep those, unless `overrides` name them
        exactly. ``None`` leaves the registry's settings, or its overrides, as they are.

        Raises:
            SettingsError: what should be settings is not; nothing is replaced then.
        """
        with self._lock:
            self._take(settings, overrides)
            changes = [
                (breaker, self._settings_for(name)) for name, breaker in self._breakers.items()
            ]
        for breaker, chosen in changes:
            if chosen != breaker.settings:
                breaker.replace_settings(chosen)

    def remove(self, name: str) -> None:
        """Forget the breaker called `name`; one that is not there is no error."""
        with self._lock:
            self._forget(name)

    def __iter__(self) -> Iterator[CircuitBreaker]:
        """Go through the breakers, by name."""
        with self._lock:
            return iter(sorted(self._breakers.values(), key=lambda breaker: breaker.name))

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a breaker called `name`; makes none."""
        with self._lock:
            return name in self._breakers

    def __len__(self) -> int:
        """Tell how many breakers there are."""
        with self._lock:
            return len(self._breakers)

    def _settings_for(self, name: str) -> BreakerSettings:
        if name in self._overrides:
            return self._overrides[name]
        if name in self._told:
            return self._told[name]
        fitting = [pattern for pattern in self._overrides if fnmatchcase(name, pattern)]
        return self._overrides[max(fitting, key=len)] if fitting else self._settings

    def _take(
        self, settings: BreakerSettings | None, overrides: Mapping[str, BreakerSettings] | None
    ) -> None:
        """Take over what is given, if all of it can be right."""
        if settings is not None:
            check_settings(settings)
        for name, override in (overrides or {}).items():
            check_settings(override, f"overrides[{name!r}]")
        if settings is not None:
            self._settings = settings
        if overrides is not None:
            self._overrides = dict(overrides)

    def _has_room_for(self, name: str) -> bool:
        return self._limit is None or name in self._breakers or len(self._breakers) < self._limit

    def _get_or_make(self, name: str, settings: BreakerSettings | None) -> CircuitBreaker:
        breaker = self._breakers.pop(name, None)
        if breaker is None:
            if settings is not None:
                self._told[name] = settings
            breaker = CircuitBreaker(name, settings=self._settings_for(name), clock=self._clock)
        self._breakers[name] = breaker
        return breaker

    def _differs(self, breaker: CircuitBreaker, settings: BreakerSettings | None) -> bool:
        """Tell whether other settings are asked for than the breaker has, for the first time."""
        name = breaker.name
        if (
            settings is None
            or settings == self._told.get(name, breaker.settings)
            or name in self._differed
        ):
            return False
        self._differed.add(name)
        return True

    def _forget(self, name: str) -> None:
        if self._breakers.pop(name, None) is not None:
            self.generation += 1
        self._told.pop(name, None)
        self._differed.discard(name)


def _is_limit(limit: object) -> bool:
    return isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1


def _least(breakers: tuple[CircuitBreaker, ...]) -> CircuitBreaker:
    """Find the one that is worth least; of equals the first, asked for the longest time ago."""
    # One that is worth nothing is common, and then the others need not be looked at.
    idle = next((breaker for breaker in breakers if not _worth(breaker)), None)
    return min(breakers, key=_worth) if idle is None else idle


def _worth(breaker: CircuitBreaker) -> int:
    """Say how much would be lost: nothing, what it has counted, or its protection."""
    state = breaker.state
    if state is not CircuitState.CLOSED:
        return 2 if state in (CircuitState.OPEN, CircuitState.HALF_OPEN) else 3
    snapshot = breaker.snapshot()
    return 1 if snapshot.consecutive_failures or snapshot.failed or snapshot.slow else 0


# Made when it is imported: of two threads that came first, each might make one of its own.
_DEFAULT = BreakerRegistry()


def default_registry() -> BreakerRegistry:
    """Return the registry that the process shares."""
    return _DEFAULT
