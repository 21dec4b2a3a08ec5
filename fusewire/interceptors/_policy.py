"""How a method is guarded: its breaker, what the ends of its calls mean, and its fallback."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fusewire._throttle import Throttle
from fusewire.breaker import BreakerSettings, CircuitBreaker, default_registry
from fusewire.errors import SettingsError
from fusewire.interceptors._arguments import (
    BreakerPer,
    check_choice,
    check_dependency,
    classify_by_selector,
    fallbacks_by_selector,
    settings_by_selector,
    streams_by_selector,
)
from fusewire.interceptors._classification import Classification, Classify
from fusewire.interceptors._fallback import CallFallback, Fallback, refusal, unfit
from fusewire.interceptors._keys import MethodKeys
from fusewire.interceptors._methods import Names, known_method, warn_once
from fusewire.interceptors._selectors import EVERYTHING, place, selected
from fusewire.interceptors._targets import targets

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fusewire.breaker import BreakerRegistry
    from fusewire.interceptors._arguments import (
        ClassifyBySelector,
        SettingsBySelector,
        StreamsBySelector,
    )
    from fusewire.interceptors._health import HealthProbe
    from fusewire.interceptors._methods import Shape

logger = logging.getLogger("fusewire.interceptors")

NEVER_GUARDED = ("/grpc.health.v1.", "/grpc.reflection.")
"""Services that report on a server: a breaker would hide their answers."""


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """How one method is guarded.

    Attributes:
        method: the method's path.
        breaker: its breaker, shared with every channel to the same dependency; None for a method
            that is not guarded, whose calls only get keys.
        classify: decides what the end of a call means.
        fallback: what may answer in place of a failure or rejection; None if nothing may.
        keys: makes the idempotency keys of its calls; None if they get none.
        timed: whether the time until a call is settled counts as the dependency's.
        until_first_message: whether a call is settled by the first message of its response stream.
        prepares: whether its calls may have to be changed before they are sent.
        plain: whether its calls need a permit and nothing else, unless an operation is entered.
        generation: the registry's, before it returned the breaker. Once the registry has another
            one, the next call gets the breaker again.
        failures: limits how many failures of the fallback are logged.
    """

    method: str
    breaker: CircuitBreaker | None
    classify: Classify
    fallback: CallFallback | None
    keys: MethodKeys | None
    timed: bool
    until_first_message: bool
    prepares: bool
    plain: bool
    generation: int
    failures: Throttle = field(default_factory=Throttle, compare=False)


class BreakerSource(Protocol):
    """Where a channel's breakers come from: a registry."""

    @property
    def generation(self) -> int:
        """A number that changes whenever a breaker may have been dropped."""

    def get(self, name: str, settings: BreakerSettings | None = None) -> CircuitBreaker:
        """Return the breaker called `name`."""

    def holds(self, breaker: CircuitBreaker) -> bool:
        """Return whether :meth:`get` still returns `breaker`."""


class _OwnRegistry:
    """A registry of the user's own, of which only ``get`` is required."""

    def __init__(self, registry: BreakerRegistry) -> None:
        self._registry = registry

    @property
    def generation(self) -> int:
        return getattr(self._registry, "generation", 0)

    def get(self, name: str, settings: BreakerSettings | None = None) -> CircuitBreaker:
        return self._registry.get(name, settings)

    def holds(self, _breaker: CircuitBreaker) -> bool:
        return True


def _source_of(registry: BreakerRegistry) -> BreakerSource:
    has_all = hasattr(registry, "generation") and hasattr(registry, "holds")
    return registry if has_all else _OwnRegistry(registry)


class Policies:
    """The policies of one channel's methods, found by selector and kept.

    The arguments are those of :func:`~fusewire.interceptors.guard`, and:

    Args:
        sync: whether they are for a sync channel.
        target: where the channel leads; empty if that is not known.

    Attributes:
        registry: where the breakers live.

    Raises:
        SettingsError: a setting is wrong.
    """

    def __init__(
        self,
        settings: SettingsBySelector,
        *,
        dependency: str | None,
        registry: BreakerRegistry | None,
        fallbacks: Mapping[str, Fallback | None] | None,
        classify: ClassifyBySelector,
        idempotent: Collection[str],
        streams: StreamsBySelector,
        breaker_per: BreakerPer,
        health: HealthProbe | None,
        sync: bool,
        target: str = "",
    ) -> None:
        self._settings = settings_by_selector(settings)
        self._prefix = check_dependency(dependency)
        self.registry = default_registry() if registry is None else registry
        self._source = _source_of(self.registry)
        self._classify = classify_by_selector(classify)
        self._idempotent = selected("idempotent", idempotent)
        self._streams = streams_by_selector(streams)
        self._per_service = check_choice("breaker_per", breaker_per, BreakerPer) == "service"
        self._health = health
        self._fallbacks = fallbacks_by_selector(fallbacks or {}, sync=sync)
        self._sync = sync
        self._target = target
        for selector in self._fallbacks:
            if not selector.endswith(EVERYTHING) and not self._guarded(selector):
                raise SettingsError(
                    f"{place('fallbacks', selector)} must be for a guarded method, got one that "
                    "is not, so its fallback would never be asked; give it settings, or leave its "
                    "fallback out"
                )
        self._names = Names(
            {
                "settings": self._settings,
                "fallbacks": self._fallbacks,
                "classify": self._classify,
                "idempotent": self._idempotent,
                "streams": self._streams,
            }
        )
        for selector in (*self._fallbacks, *self._idempotent):
            if (known := known_method(selector)) is not None:
                self._check_shape(selector, known.shape)
        self._default_classify: Classify = Classification()
        self._warned_unguarded = False
        self._known: dict[str | bytes, MethodPolicy | None] = {}
        self._generation = self._source.generation  # of the policies that are known
        self._keys: dict[str, MethodKeys] = {}  # kept, because each warns once

    def note_method(self, method: str, shape: Shape) -> None:
        """Take note of a method that a stub has made on a sync channel.

        Raises:
            SettingsError: a setting names the method, and its shape does not allow that setting.
        """
        self._check_shape(method, shape)
        self._names.note_method(method)

    def _check_shape(self, method: str, shape: Shape) -> None:
        """Refuse settings that name this very method and that its shape does not allow.

        Raises:
            SettingsError: there is such a setting.
        """
        if shape.startswith("stream") and self._idempotent.names(method):
            raise SettingsError(
                f"{place('idempotent', method)} must be a method with one request, got one with a "
                "stream of them, for which no key can be made before they are sent; leave it out, "
                "and give its calls an idempotency-key of their own"
            )
        if self._fallbacks.names(method):
            fallback = self._fallbacks.find(method)
            reason = None if fallback is None else unfit(fallback, sync=self._sync, shape=shape)
            if reason is not None:
                raise refusal(method, reason)

    def of(self, method: str | bytes, shape: Shape) -> MethodPolicy | None:
        """Return how `method` is guarded; None for a method that is not.

        Args:
            method: its path. On asyncio channels grpcio passes bytes, in spite of its annotation
                (https://github.com/grpc/grpc/issues/31092).
            shape: its shape.

        Raises:
            SettingsError: a setting names the method, and its shape does not allow that setting.
        """
        known = self._known.get(method)
        if known is not None and known.generation == self._source.generation:
            return known
        if known is None and method in self._known:
            return None
        path = method.decode() if isinstance(method, bytes) else method
        if known is None:
            self._check_shape(path, shape)
            self._warn_of_names(path)
        return self._renew(method, path, shape, known)

    def _warn_of_names(self, method: str) -> None:
        """Warn, at the first call of `method`, of names in settings that seem to be wrong."""
        if method.startswith(NEVER_GUARDED):
            return
        self._names.warn_at_first_call(method)
        if self._settings.selector_of(method) is None and not self._warned_unguarded:
            self._warned_unguarded = True
            warn_once(
                f"a call to {method!r} is not guarded, because no selector of its channel's "
                'settings matches it; add "*": None to the settings if that is meant, or "*": '
                "BreakerSettings()"
            )

    def _renew(
        self, method: str | bytes, path: str, shape: Shape, outdated: MethodPolicy | None
    ) -> MethodPolicy | None:
        """Make a policy with the registry's present breaker, and keep it."""
        if self._generation != self._source.generation:
            self._forget_outdated()
        try:
            policy = self._make(path, shape)
        except Exception:
            # A registry of the user's own may fail, and the call must not.
            logger.exception("no guard for %s: its registry gave no breaker", path)
            if outdated is not None:
                self._known[method] = outdated
            return outdated
        # Two threads may come here at once. The registry returns the same breaker to both. If it
        # drops that breaker meanwhile, its generation makes what they keep here outdated.
        self._known[method] = policy
        return policy

    def _forget_outdated(self) -> None:
        """Drop all policies, because the registry has dropped some of their breakers."""
        self._generation = self._source.generation
        known, self._known = self._known, {}
        for policy in known.values():
            breaker = policy.breaker if policy is not None else None
            if self._health and breaker and not self._source.holds(breaker):
                self._health.unwatch(breaker)

    def _guarded(self, method: str) -> bool:
        return not method.startswith(NEVER_GUARDED) and self._settings.find(method) is not None

    def _make(self, method: str, shape: Shape) -> MethodPolicy | None:
        if method.startswith(NEVER_GUARDED):
            return None
        generation = self._source.generation  # read first: the breaker may be dropped at once
        breaker = self._breaker_of(method)
        fallback = None if breaker is None else self._fallbacks.find(method)
        if fallback is not None and unfit(fallback, sync=self._sync, shape=shape) is not None:
            fallback = None  # a pattern skips methods that its fallback cannot answer
        keys = self._keys_of(method, fallback)
        # A call with one response is settled at its end, and all of its time counts.
        streams = (self._streams.find(method) or "end") if shape.endswith("stream") else None
        if breaker is None and keys is None:
            return None
        prepares = keys is not None or fallback is not None
        return MethodPolicy(
            method=method,
            breaker=breaker,
            classify=self._classify.find(method) or self._default_classify,
            fallback=fallback,
            keys=keys,
            timed=streams != "end",
            until_first_message=streams == "first_message",
            prepares=prepares,
            plain=not prepares and streams != "first_message",
            generation=generation,
        )

    def _breaker_of(self, method: str) -> CircuitBreaker | None:
        settings = self._settings.find(method)
        if settings is None:
            return None
        service = method.rpartition("/")[0]
        targets.note(self.registry, self._prefix + service, self._target)
        shared = self._per_service and not self._settings.names(method)
        breaker = self._source.get(
            self._prefix + (service if shared else method),
            settings if isinstance(settings, BreakerSettings) else None,
        )
        if self._health is not None:
            self._health.watch(breaker, service.lstrip("/"))
        return breaker

    def _keys_of(self, method: str, fallback: CallFallback | None) -> MethodKeys | None:
        idempotent = self._idempotent.find(method) is True
        parks = bool(getattr(fallback, "parks", False))
        if not idempotent and not parks:
            return None
        return self._keys.setdefault(
            method,
            MethodKeys(
                self._prefix,
                method,
                idempotent=idempotent,
                parks=parks,
                serialize=getattr(fallback, "serializer", None) if parks else None,
                sync=self._sync,
            ),
        )
