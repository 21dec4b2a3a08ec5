"""One breaker per name: all callers of a dependency share its circuit."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from itertools import count
from typing import TYPE_CHECKING, Any, overload

from fusewire._locks import interrupts_itself, make_lock
from fusewire._validation import COUNT, check, invalid
from fusewire.breaker._breaker import CircuitBreaker
from fusewire.breaker._choosing import LIBRARY, ChosenSettings, checked
from fusewire.breaker._events import REGISTRY_CHANGES, Event, EventT
from fusewire.breaker._eviction import Candidates
from fusewire.breaker._figures import CircuitMode
from fusewire.breaker._layer import SetMode, SettingsLayer, set_mode
from fusewire.breaker._listeners import ListenerEntry
from fusewire.breaker._settings import check_settings, describe_differences
from fusewire.breaker._states import CircuitState
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fusewire.breaker._settings import BreakerSettings

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
            else one that has counted failures. One that rejects calls is removed last. Breakers
            that were given to :meth:`add` are never removed for that.
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
        self._settings = ChosenSettings()
        self._settings.store(*checked(settings, overrides))
        self._limit = limit
        self._clock = clock
        self._measures = False
        self._listeners: tuple[ListenerEntry, ...] = ()
        self._generations = count()
        # Not a property, because every guarded call compares it.
        self.generation = next(self._generations)
        self._lock = make_lock()
        self._breakers: dict[str, CircuitBreaker] = {}
        self._candidates = Candidates()
        self._added: set[str] = set()
        self._differed: set[str] = set()

    def get(self, name: str, settings: BreakerSettings | None = None) -> CircuitBreaker:
        """Return the breaker called `name`. Make it if there is none, whatever the name.

        The first `settings` that are given for a name apply to its breaker, even if it was made
        earlier without settings, unless an override has exactly this name. Different settings given
        later change nothing, and the difference is logged once.
        """
        if settings is not None:
            check_settings(settings, f"settings of circuit {name!r}")
        elif self._limit is None and (known := self._breakers.get(name)) is not None:
            return known  # nothing is to be noted of who is asked for
        breaker, is_new = self._find_or_make(name, settings)
        if settings is not None:
            self._apply(breaker, settings)
        if is_new:
            self._welcome(breaker)
        return breaker

    def add(self, breaker: CircuitBreaker) -> CircuitBreaker:
        """Add a breaker that was made elsewhere, and return it. Adding it twice is no error.

        It keeps its clock, and its settings unless an override has exactly its name. It stays until
        :meth:`remove`, whatever the limit of the registry.

        Raises:
            SettingsError: the registry has another breaker of this name, or this is no breaker.
        """
        if not isinstance(breaker, CircuitBreaker):
            raise invalid("breaker", "a CircuitBreaker", breaker)
        name = breaker.name
        with self._lock:
            is_new = name not in self._breakers
            if self._breakers.setdefault(name, breaker) is not breaker:
                raise SettingsError(
                    f"the registry has another breaker called {name!r}: add breakers before "
                    "anything asks for their names, or give this one another name"
                )
            if is_new:
                self._added.add(name)
                self._settings.given[name] = breaker.settings
        if is_new:
            self._settle(breaker)
            self._welcome(breaker)
        return breaker

    def find(self, name: str) -> CircuitBreaker | None:
        """Return the breaker called `name`, or None. Make none.

        To look at a breaker is not to use it: a registry with a `limit` does not keep it longer.
        """
        return self._breakers.get(name)

    def holds(self, breaker: CircuitBreaker) -> bool:
        """Return whether `breaker` is still the one that :meth:`get` returns for its name."""
        return self.find(breaker.name) is breaker

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
        stored = checked(settings, overrides)
        with self._lock:
            self._settings.store(*stored)
            breakers = tuple(self._breakers.values())
        for breaker in breakers:
            self._settle(breaker)

    def overlay(self, layer: SettingsLayer | None) -> None:
        """Put a layer of settings above those of code, in place of the former; None for none.

        State and windows are kept. It is what :meth:`fusewire.config.Config.apply` calls.
        """
        with self._lock:
            former, self._settings.layer = self._settings.layer, layer
            breakers = tuple(self._breakers.values())
        # Not under the lock: no call waits while names are matched.
        for breaker in breakers:
            old = breaker.settings
            self._settle(breaker)
            if layer is not None:
                layer.report(breaker.name, old, breaker.settings, former)
            self._change_mode(breaker, former, layer)

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
            removed = self._remove(name)
        self._dismiss(removed)

    @overload
    def add_listener(self, listener: Callable[[Event], None]) -> Callable[[], None]: ...

    @overload
    def add_listener(
        self, listener: Callable[[EventT], None], kinds: type[EventT] | tuple[type[EventT], ...]
    ) -> Callable[[], None]: ...

    def add_listener(
        self, listener: Callable[[Any], None], kinds: Any = REGISTRY_CHANGES
    ) -> Callable[[], None]:
        """Call `listener` with events of `kinds` of all breakers there are and will be.

        The first event of each breaker is :class:`BreakerAdded`, also of those that are there
        already; the last is :class:`BreakerRemoved`. Otherwise it is as for
        :meth:`CircuitBreaker.add_listener`. Events of one breaker come in order; events of several
        may come in several threads at the same time.

        Returns:
            A function that removes the listener.

        Raises:
            SettingsError: no event could ever reach it.
        """
        entry = ListenerEntry.of(listener, kinds)
        with self._lock:
            self._listeners += (entry,)
            breakers = tuple(self._breakers.values())
        for breaker in breakers:
            self._introduce(entry, breaker)

        def remove() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not entry)
                breakers = tuple(self._breakers.values())
            for breaker in breakers:
                breaker._change_now(breaker._listen_no_more, entry)  # noqa: SLF001 - see _introduce

        return remove

    def __iter__(self) -> Iterator[CircuitBreaker]:
        """Iterate over the breakers, in order of their names."""
        return iter(sorted(self._breakers.copy().values(), key=lambda breaker: breaker.name))

    def __contains__(self, name: object) -> bool:
        """Return whether there is a breaker called `name`. Makes none."""
        return name in self._breakers

    def __len__(self) -> int:
        """Return how many breakers there are."""
        return len(self._breakers)

    def _settle(self, breaker: CircuitBreaker) -> None:
        """Give a breaker the settings that it is to have now.

        Again, if they have changed meanwhile, so that the last change counts.
        """
        chosen = None
        while (now := self._settings.of(breaker.name)) != chosen:
            chosen = now
            if chosen != breaker.settings:
                breaker.replace_settings(chosen)

    def _find_or_make(
        self, name: str, settings: BreakerSettings | None
    ) -> tuple[CircuitBreaker, bool]:
        """Return the breaker, and whether it is new."""
        interrupts = interrupts_itself()  # such code must not wait
        while True:
            made = None
            if name not in self._breakers:
                # Not under the lock: no other call waits while the name is matched.
                basis = self._settings.basis(name, settings)
                chosen = basis.settings_of(name)
                made = CircuitBreaker(name, settings=chosen, clock=self._clock)
            with nullcontext() if interrupts else self._lock:
                candidates = {} if interrupts else self._candidates_for(name)
                if not candidates:
                    breaker = self._breakers.get(name)
                    is_new = breaker is None
                    if made is not None and self._settings.basis(name, settings).is_still(basis):
                        breaker = breaker or self._add_new(made, settings)
                    if breaker is not None:
                        if self._limit is not None and name not in self._added:
                            self._candidates.add(name)
                        return breaker, is_new
            if candidates:
                self._remove_one(candidates, name)

    def _add_new(self, made: CircuitBreaker, settings: BreakerSettings | None) -> CircuitBreaker:
        """Add a breaker. Each step leaves a consistent state for code that interrupts it."""
        if settings is not None:
            self._settings.given.setdefault(made.name, settings)
        for entry in self._listeners:
            # Before another thread can use it, so that no event is missed. Nobody delivers yet.
            made._join(0.0, entry)  # noqa: SLF001 - see _introduce
        return self._breakers.setdefault(made.name, made)

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
        removed = None
        with self._lock:
            if self._candidates_for(name):
                removed = self._remove(self._candidates.choose(candidates, worth))
        self._dismiss(removed)

    def _apply(self, breaker: CircuitBreaker, settings: BreakerSettings) -> None:
        """Apply `settings` if they are the first for this name. Otherwise log once what differs."""
        name = breaker.name
        if self._settings.given.get(name) is settings:
            return  # it was made with them
        as_made = breaker.settings == self._settings.of(name)
        # Code that interrupts its thread must not wait. Each step leaves a consistent state.
        with nullcontext() if interrupts_itself() else self._lock:
            told = self._settings.given.setdefault(name, settings)
            differs = told != settings and name not in self._differed
            if differs:
                self._differed.add(name)
        if told is settings and as_made:
            self._settle(breaker)
        elif differs and (chosen := self._settings.of(name)) is told:
            logger.warning(
                "circuit %r keeps the settings that were given first: %s",
                name,
                describe_differences(chosen, settings),
            )

    def _remove(self, name: str) -> CircuitBreaker | None:
        self._candidates.discard(name)
        removed = self._breakers.pop(name, None)
        if removed is not None:
            self.generation = next(self._generations)
        self._settings.given.pop(name, None)
        self._differed.discard(name)
        self._added.discard(name)
        return removed

    # What follows calls listeners, so the lock must not be held.

    def _welcome(self, breaker: CircuitBreaker) -> None:
        """Do what remains to be done when a breaker has been added."""
        if self._measures and breaker.durations is None:
            breaker.measure_durations()
        if (layer := self._settings.layer) is not None:
            code = self._settings.basis(breaker.name).by_code(breaker.name) or LIBRARY
            layer.report(breaker.name, code, breaker.settings, None)
            self._change_mode(breaker, None, layer)
        for entry in self._listeners:
            self._introduce(entry, breaker)

    def _change_mode(
        self, breaker: CircuitBreaker, former: SettingsLayer | None, layer: SettingsLayer | None
    ) -> None:
        """Set the mode that a layer says, if the former layer did not say the same.

        So what is set by hand stays, until a file changes its mind.
        """
        before, now = (
            None if one is None else one.mode_for(breaker.name) for one in (former, layer)
        )
        if before is not None and now is None:
            now = SetMode(CircuitMode.AUTOMATIC, before.by)
        if now is not None and (before is None or before.mode is not now.mode):
            set_mode(breaker, now)

    def _introduce(self, entry: ListenerEntry, breaker: CircuitBreaker) -> None:
        """Let a listener hear of a breaker, unless either of them has just been removed."""
        # The steps of a circuit are private to users, and not to its registry.
        breaker._change_now(  # noqa: SLF001 - see above
            breaker._join,  # noqa: SLF001 - see above
            entry,
            lambda: entry in self._listeners and self.holds(breaker),
        )

    def _dismiss(self, breaker: CircuitBreaker | None) -> None:
        """Let the listeners hear of a breaker, if one was removed, for the last time."""
        if breaker is not None and self._listeners:
            breaker._change_now(breaker._leave, self._listeners)  # noqa: SLF001 - see _introduce


def _worth(breaker: CircuitBreaker) -> int:
    """Return how much would be lost: nothing, what it has counted, or its protection."""
    state = breaker.state
    if state is not CircuitState.CLOSED:
        return 2 if state in (CircuitState.OPEN, CircuitState.HALF_OPEN) else 3
    figures = breaker.figures()
    return 1 if figures.consecutive_failures or figures.failed or figures.slow else 0


# Made on import. Made later, two threads might each make their own.
_DEFAULT = BreakerRegistry()


def default_registry() -> BreakerRegistry:
    """Return the registry that the whole process shares."""
    return _DEFAULT
