"""One breaker per name: all callers of a dependency share its circuit."""

from __future__ import annotations

import logging
import time
from fnmatch import fnmatchcase
from itertools import count
from typing import TYPE_CHECKING

from fusewire._locks import interrupts_itself, make_lock
from fusewire._validation import COUNT, check
from fusewire.breaker._breaker import CircuitBreaker
from fusewire.breaker._eviction import Candidates
from fusewire.breaker._settings import BreakerSettings, check_settings, describe_differences
from fusewire.breaker._states import CircuitState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

logger = logging.getLogger("fusewire.breaker")


class BreakerRegistry:
    """Breakers by name, made when they are first asked for.

    Args:
        settings: the settings of new breakers, unless `overrides` or :meth:`get` give others.
        overrides: settings by name or by pattern, such as ``"/payments.*"``. An exact name comes
            first, then the longest pattern that matches. ``*``, ``?`` and ``[…]`` work as in a
            shell.
        limit: the number of breakers to keep; ``None`` keeps all. When there would be more, one of
            those not asked for the longest is removed: if possible one that is closed and idle, or
            else one that has counted failures. One that rejects calls is removed last.
        clock: returns monotonic seconds, for all breakers.

    Attributes:
        generation: a number that changes whenever a breaker is removed. Code may keep breakers from
            :meth:`get` for as long as the number stays the same.

    Raises:
        SettingsError: `limit` is not a whole number of at least 1, or settings are not valid.
    """

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        *,
        overrides: Mapping[str, BreakerSettings] | None = None,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check("limit", limit, COUNT.or_none)
        self._settings = BreakerSettings()
        self._overrides: dict[str, BreakerSettings] = {}
        self._store(settings, overrides)
        self._limit = limit
        self._clock = clock
        self._measures = False
        self._generations = count()
        # Not a property, because every guarded call compares it.
        self.generation = next(self._generations)
        self._lock = make_lock()
        self._breakers: dict[str, CircuitBreaker] = {}
        self._candidates = Candidates()
        # The settings that `get` was given for a name. A later `configure` respects them.
        self._given: dict[str, BreakerSettings] = {}
        self._differed: set[str] = set()

    def get(self, name: str, settings: BreakerSettings | None = None) -> CircuitBreaker:
        """Return the breaker called `name`. Make it if there is none, whatever the name.

        The first `settings` that are given for a name apply to its breaker, even if it was made
        earlier without settings, unless an override has exactly this name. Different settings given
        later change nothing, and the difference is logged once.
        """
        if settings is not None:
            check_settings(settings, f"settings of circuit {name!r}")
        if interrupts_itself():
            return self._get_or_make(name, settings)
        while True:
            with self._lock:
                candidates = self._candidates_for(name)
                if not candidates:
                    breaker = self._get_or_make(name, settings)
                    break
            self._remove_one(candidates, name)
        if settings is not None:
            self._apply(breaker, settings)
        return breaker

    def holds(self, breaker: CircuitBreaker) -> bool:
        """Return whether `breaker` is still the one that :meth:`get` returns for its name."""
        return self._breakers.get(breaker.name) is breaker

    def configure(
        self,
        settings: BreakerSettings | None = None,
        overrides: Mapping[str, BreakerSettings] | None = None,
    ) -> None:
        """Replace the settings of all breakers in place. Their state and windows are kept.

        Breakers that :meth:`get` was given settings for keep those, unless `overrides` has exactly
        their name. ``None`` leaves the registry's settings, or its overrides, as they are.

        Raises:
            SettingsError: the settings are not valid. Nothing is replaced then.
        """
        with self._lock:
            self._store(settings, overrides)
            changes = [
                (breaker, self._settings_for(name)) for name, breaker in self._breakers.items()
            ]
        for breaker, chosen in changes:
            if chosen != breaker.settings:
                breaker.replace_settings(chosen)

    def measure_durations(self) -> None:
        """Have all breakers record how long calls take, those too that are made later. Idempotent.

        A replay needs it, so a consumer switches it on. See :class:`Durations`.
        """
        self._measures = True
        for breaker in self._breakers.copy().values():
            if breaker.durations is None:
                breaker.measure_durations()

    def remove(self, name: str) -> None:
        """Remove the breaker called `name`. One that is not there is no error."""
        with self._lock:
            self._remove(name)

    def __iter__(self) -> Iterator[CircuitBreaker]:
        """Iterate over the breakers, in order of their names."""
        return iter(sorted(self._breakers.copy().values(), key=lambda breaker: breaker.name))

    def __contains__(self, name: object) -> bool:
        """Return whether there is a breaker called `name`. Makes none."""
        return name in self._breakers

    def __len__(self) -> int:
        """Return how many breakers there are."""
        return len(self._breakers)

    def _settings_for(self, name: str) -> BreakerSettings:
        if name in self._overrides:
            return self._overrides[name]
        if name in self._given:
            return self._given[name]
        fitting = [pattern for pattern in self._overrides if fnmatchcase(name, pattern)]
        return self._overrides[max(fitting, key=len)] if fitting else self._settings

    def _store(
        self, settings: BreakerSettings | None, overrides: Mapping[str, BreakerSettings] | None
    ) -> None:
        """Store what is given, if all of it is valid."""
        if settings is not None:
            check_settings(settings)
        for name, override in (overrides or {}).items():
            check_settings(override, f"overrides[{name!r}]")
        if settings is not None:
            self._settings = settings
        if overrides is not None:
            self._overrides = dict(overrides)

    def _get_or_make(self, name: str, settings: BreakerSettings | None) -> CircuitBreaker:
        """Return the breaker. Each step leaves a consistent state for code that interrupts it."""
        breaker = self._breakers.get(name)
        if breaker is None:
            if settings is not None:
                self._given.setdefault(name, settings)
            made = CircuitBreaker(name, settings=self._settings_for(name), clock=self._clock)
            breaker = self._breakers.setdefault(name, made)
            if self._measures and breaker.durations is None:
                breaker.measure_durations()
        if self._limit is not None:
            self._candidates.add(name)
        return breaker

    def _candidates_for(self, name: str) -> dict[str, int]:
        """Return the candidates if one has to be removed before `name` is added."""
        if self._limit is None or name in self._breakers or len(self._breakers) < self._limit:
            return {}
        # Empty if this interrupts the thread while it makes the only breaker.
        return self._candidates.first()

    def _remove_one(self, candidates: dict[str, int], name: str) -> None:
        """Remove the candidate that is worth least."""
        # Not under the lock: a look may call listeners, which may use the registry.
        worth = {
            each: _worth(breaker)
            for each in candidates
            if (breaker := self._breakers.get(each)) is not None
        }
        with self._lock:
            if self._candidates_for(name):
                self._remove(self._candidates.choose(candidates, worth))

    def _apply(self, breaker: CircuitBreaker, settings: BreakerSettings) -> None:
        """Apply `settings` if they are the first for this name. Otherwise log once what differs."""
        name = breaker.name
        with self._lock:
            as_made = breaker.settings == self._settings_for(name)
            told = self._given.setdefault(name, settings)
            chosen = self._settings_for(name)
            differs = told != settings and name not in self._differed
            if differs:
                self._differed.add(name)
        if told is settings and as_made and chosen != breaker.settings:
            breaker.replace_settings(chosen)
        elif differs and chosen is told:
            logger.warning(
                "circuit %r keeps the settings that were given first: %s",
                name,
                describe_differences(chosen, settings),
            )

    def _remove(self, name: str) -> None:
        self._candidates.discard(name)
        if self._breakers.pop(name, None) is not None:
            self.generation = next(self._generations)
        self._given.pop(name, None)
        self._differed.discard(name)


def _worth(breaker: CircuitBreaker) -> int:
    """Return how much would be lost: nothing, what it has counted, or its protection."""
    state = breaker.state
    if state is not CircuitState.CLOSED:
        return 2 if state in (CircuitState.OPEN, CircuitState.HALF_OPEN) else 3
    snapshot = breaker.snapshot()
    return 1 if snapshot.consecutive_failures or snapshot.failed or snapshot.slow else 0


# Made on import. Made later, two threads might each make their own.
_DEFAULT = BreakerRegistry()


def default_registry() -> BreakerRegistry:
    """Return the registry that the whole process shares."""
    return _DEFAULT
