"""Which guard a method has: its breaker, what its ends mean, and its fallback."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from fusewire.breaker import BreakerSettings, CircuitBreaker, default_registry
from fusewire.breaker.functions import is_plain_function
from fusewire.errors import SettingsError
from fusewire.interceptors.classification import Classification, Classify
from fusewire.interceptors.fallback import CallFallback, Fallback, as_call_fallback
from fusewire.interceptors.keys import MethodKeys
from fusewire.interceptors.selectors import EVERYTHING, Selectors, selected

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry
    from fusewire.interceptors.health import HealthProbe

logger = logging.getLogger(__name__)

SettingsBySelector: TypeAlias = BreakerSettings | Mapping[str, BreakerSettings | None] | None
ClassifyBySelector: TypeAlias = Classify | Mapping[str, Classify] | None
Streams: TypeAlias = Literal["end", "first_message", "total_time"]
StreamsBySelector: TypeAlias = Streams | Mapping[str, Streams]
BreakerPer: TypeAlias = Literal["method", "service"]

NEVER_GUARDED = ("/grpc.health.v1.", "/grpc.reflection.")
"""Services that are asked how things stand: a breaker would hide the answer."""


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """How one method is guarded.

    Attributes:
        method: the method's path.
        breaker: its circuit, shared with every channel to the same dependency; None for a method
            that is not guarded, whose calls only get their keys.
        classify: what the end of one of its calls says.
        fallback: what answers in its place, if anything.
        keys: makes the idempotency keys of its calls; None if they get none.
        streams: when a call whose response is a stream is settled, and what its time is.
        prepares: whether its calls may have to be changed before they are sent.
        generation: the registry's when it gave the breaker; once the registry has another, a later
            call asks anew.
    """

    method: str
    breaker: CircuitBreaker | None
    classify: Classify
    fallback: CallFallback | None
    keys: MethodKeys | None
    streams: Streams
    prepares: bool
    generation: int


class _Keeper(Protocol):
    """What tells that it may have dropped breakers: a registry."""

    generation: int


class _Forever:
    """Stands for registries of users' own that do not tell: what they give is kept."""

    generation = 0


class Policies:
    """The policies of one channel's methods, found by selector and kept.

    Args:
        settings: the same for every method, or by selector; None for the registry's own.
        dependency: what tells this deployment of the services apart from another.
        registry: where the breakers live.
        fallbacks: fallbacks by selector.
        classify: what the ends of calls mean, for all methods or by selector.
        idempotent: selectors of the methods whose server honors an idempotency key.
        streams: when streams are settled, for all methods or by selector.
        breaker_per: what has a breaker of its own.
        health: what is told of the breakers, to ask for the health of their services.
        sync: whether they are for a sync channel.

    Attributes:
        keeper: whose `generation` a policy has that is not outdated.

    Raises:
        SettingsError: something of it cannot be right.
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
    ) -> None:
        self._settings = _settings_by_selector(settings)
        self._prefix = _checked_dependency(dependency)
        self._registry = default_registry() if registry is None else registry
        self.keeper: _Keeper = (
            self._registry if hasattr(self._registry, "generation") else _Forever()
        )
        self._classify = _classify_by_selector(classify)
        self._idempotent = selected("idempotent", idempotent)
        self._streams = _streams_by_selector(streams)
        self._per_service = _checked_choice("breaker_per", breaker_per, BreakerPer) == "service"
        self._health = health
        self._fallbacks = Selectors(
            "fallbacks",
            {
                selector: None
                if fallback is None
                else as_call_fallback(selector, fallback, sync=sync)
                for selector, fallback in (fallbacks or {}).items()
            },
        )
        for selector in fallbacks or {}:
            if not selector.endswith(EVERYTHING) and not self._guarded(selector):
                raise SettingsError(
                    f"fallbacks: {selector!r} is a method that is not guarded, so its fallback "
                    "would never be asked; give the method settings or leave its fallback out"
                )
        self._default_classify: Classify = Classification()
        self._sync = sync
        self._known: dict[str, MethodPolicy | None] = {}
        self._keys: dict[str, MethodKeys] = {}  # kept, because each warns once

    def check_stream(self, method: str) -> None:
        """Refuse a method that takes a stream of requests and is named idempotent.

        Raises:
            SettingsError: it is.
        """
        if self._idempotent.names(method):
            raise SettingsError(
                f"idempotent: {method!r} takes a stream of requests, of which no key can be made "
                "before it is sent; leave it out, and give its calls an idempotency-key of their "
                "own"
            )

    def of(self, method: str) -> MethodPolicy | None:
        """Return how `method` is guarded; None for a method that is not."""
        known = self._known.get(method)
        if known is not None and known.generation == self.keeper.generation:
            return known
        if known is None and method in self._known:
            return None
        return self._renew(method, known)

    def _renew(self, method: str, outdated: MethodPolicy | None) -> MethodPolicy | None:
        """Make a policy with the breaker that the registry has now."""
        try:
            policy = self._make(method)
        except Exception:
            # A registry of the user's own may fail. The call must not.
            logger.exception("no guard for %s: its settings could not be had", method)
            return outdated
        # Two threads may both come here. The registry gives both the same breaker, and if it drops
        # that one meanwhile, what they leave here is outdated by its generation.
        self._known[method] = policy
        former = None if outdated is None else outdated.breaker
        if self._health and former and policy and policy.breaker is not former:
            self._health.unwatch(former)
        return policy

    def _guarded(self, method: str) -> bool:
        return not method.startswith(NEVER_GUARDED) and self._settings.find(method) is not None

    def _make(self, method: str) -> MethodPolicy | None:
        if method.startswith(NEVER_GUARDED):
            return None
        generation = self.keeper.generation  # before the breaker is given: it may go at once
        breaker = self._breaker_of(method)
        fallback = None if breaker is None else self._fallbacks.find(method)
        keys = self._keys_of(method, fallback)
        if breaker is None and keys is None:
            return None
        return MethodPolicy(
            method=method,
            breaker=breaker,
            classify=self._classify.find(method) or self._default_classify,
            fallback=fallback,
            keys=keys,
            streams=self._streams.find(method) or "end",
            prepares=keys is not None or fallback is not None,
            generation=generation,
        )

    def _breaker_of(self, method: str) -> CircuitBreaker | None:
        settings = self._settings.find(method)
        if settings is None:
            return None
        service = method.rpartition("/")[0]
        shared = self._per_service and not self._settings.names(method)
        breaker = self._registry.get(
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


class _RegistrysOwn:
    """Stands for the settings that a registry gives by itself."""


def _settings_by_selector(
    settings: SettingsBySelector,
) -> Selectors[BreakerSettings | _RegistrysOwn | None]:
    if settings is None:
        return Selectors("settings", {EVERYTHING: _RegistrysOwn()})
    if isinstance(settings, BreakerSettings):
        return Selectors("settings", {EVERYTHING: settings})
    if not isinstance(settings, Mapping):
        raise SettingsError(
            f"settings: {settings!r} is neither; accepted are BreakerSettings and a mapping from "
            "selectors to BreakerSettings or None"
        )
    for selector, value in settings.items():
        if value is not None and not isinstance(value, BreakerSettings):
            raise SettingsError(
                f"settings: {selector!r}: {value!r} is neither; accepted are BreakerSettings "
                "and None, which leaves the methods unguarded"
            )
    return Selectors("settings", settings)


def _classify_by_selector(classify: ClassifyBySelector) -> Selectors[Classify]:
    by_selector = classify if isinstance(classify, Mapping) else {EVERYTHING: classify}
    for selector, function in by_selector.items():
        if function is not None and not is_plain_function(function):
            raise SettingsError(
                f"classify: {selector!r}: {function!r} is neither; accepted are a Classification "
                "and a plain function of a CallEnd that returns an Outcome"
            )
    return Selectors(
        "classify", {key: value for key, value in by_selector.items() if value is not None}
    )


def _streams_by_selector(streams: object) -> Selectors[Streams]:
    by_selector = streams if isinstance(streams, Mapping) else {EVERYTHING: streams}
    return Selectors(
        "streams",
        {
            selector: _checked_choice("streams", choice, Streams)
            for selector, choice in by_selector.items()
        },
    )


def _checked_choice(setting: str, choice: object, choices: Any) -> Any:
    accepted = get_args(choices)
    if choice not in accepted:
        raise SettingsError(
            f"{setting}: {choice!r} is none of them; accepted are "
            + " and ".join(map(repr, accepted))
        )
    return choice


def _checked_dependency(dependency: object) -> str:
    if dependency is None:
        return ""
    if not isinstance(dependency, str) or not re.fullmatch(r"[!-~]+", dependency):
        raise SettingsError(
            f"dependency: {dependency!r} is not a name; accepted are visible ASCII characters "
            "without spaces, for example 'payments-eu'"
        )
    return dependency
