"""One breaker per name: all that ask for a dependency share its circuit."""

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
        settings: what breakers are made with, unless `overrides` or :meth:`get` say otherwise.
        overrides: settings by name or by pattern, such as ``"/payments.*"``. An exact name comes
            first, then the longest pattern that fits. ``*``, ``?`` and ``[…]`` are as in a shell.
        limit: breakers kept at most; ``None`` keeps all. When one too many is made, another goes:
            of those asked for the longest time ago, one that is closed and idle before one that has
            counted failures, and one that rejects calls last.
        clock: monotonic seconds, for all of them.

    Attributes:
        generation: a number that changes whenever a breaker goes. Code that keeps
            breakers from :meth:`get` still has the right ones while the number stays the same, and
            should keep none of them longer.

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
        check("limit", limit, COUNT.or_none)
        self._settings = BreakerSettings()
        self._overrides: dict[str, BreakerSettings] = {}
        self._take(settings, overrides)
        self._limit = limit
        self._clock = clock
        # No property: it is compared on every guarded call.
        self.generation = 0
        self._generations = count(1)
        self._lock = make_lock()
        self._breakers: dict[str, CircuitBreaker] = {}
        self._candidates = Candidates()
        # What `get` was told for a name, which a later `configure` respects.
        self._told: dict[str, BreakerSettings] = {}
        self._differed: set[str] = set()

    def get(self, name: str, settings: BreakerSettings | None = None) -> CircuitBreaker:
        """Return the breaker called `name`, made now if there is none.

        The first `settings` that are given for a name apply to its breaker, also if it was made
        before without any, unless an override has exactly this name. Others that are given later
        change nothing, and the log says once what differs.
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
            self._let_one_go(candidates, name)
        if settings is not None:
            self._apply(breaker, settings)
        return breaker

    def holds(self, breaker: CircuitBreaker) -> bool:
        """Tell whether `breaker` is still the one that :meth:`get` returns for its name."""
        return self._breakers.get(breaker.name) is breaker

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
        return iter(sorted(self._breakers.copy().values(), key=lambda breaker: breaker.name))

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a breaker called `name`; makes none."""
        return name in self._breakers

    def __len__(self) -> int:
        """Tell how many breakers there are."""
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

    def _get_or_make(self, name: str, settings: BreakerSettings | None) -> CircuitBreaker:
        """Return the breaker. Every step leaves things whole, for what interrupts the thread."""
        breaker = self._breakers.get(name)
        if breaker is None:
            if settings is not None:
                self._told.setdefault(name, settings)
            made = CircuitBreaker(name, settings=self._settings_for(name), clock=self._clock)
            breaker = self._breakers.setdefault(name, made)
        if self._limit is not None:
            self._candidates.add(name)
        return breaker

    def _candidates_for(self, name: str) -> dict[str, int]:
        """Return those of which one has to go before there is room for `name`."""
        if self._limit is None or name in self._breakers or len(self._breakers) < self._limit:
            return {}
        # None, if this interrupts the thread in the midst of making the only one.
        return self._candidates.first()

    def _let_one_go(self, candidates: dict[str, int], name: str) -> None:
        """Let that of the candidates go which is worth least."""
        # Not under the lock: a look may tell listeners, and they may ask the registry.
        worth = {
            each: _worth(breaker)
            for each in candidates
            if (breaker := self._breakers.get(each)) is not None
        }
        with self._lock:
            if self._candidates_for(name):
                self._forget(self._candidates.choose(candidates, worth))

    def _apply(self, breaker: CircuitBreaker, settings: BreakerSettings) -> None:
        """Have `settings` apply if they are the first for this name; else say once what differs."""
        name = breaker.name
        with self._lock:
            as_made = breaker.settings == self._settings_for(name)
            told = self._told.setdefault(name, settings)
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

    def _forget(self, name: str) -> None:
        self._candidates.discard(name)
        if self._breakers.pop(name, None) is not None:
            self.generation = next(self._generations)
        self._told.pop(name, None)
        self._differed.discard(name)


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
