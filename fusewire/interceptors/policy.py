"""Which guard a method has: its breaker, what its ends mean, and its fallback."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from fusewire.breaker import BreakerSettings, CircuitBreaker, default_registry
from fusewire.errors import SettingsError
from fusewire.interceptors.classification import Classification, Classify
from fusewire.interceptors.fallback import CallFallback, Fallback, as_call_fallback
from fusewire.interceptors.selectors import EVERYTHING, Selectors, selected

if TYPE_CHECKING:
    from fusewire.breaker import BreakerRegistry

logger = logging.getLogger(__name__)

SettingsBySelector: TypeAlias = BreakerSettings | Mapping[str, BreakerSettings | None] | None
ClassifyBySelector: TypeAlias = Classify | Mapping[str, Classify] | None

NEVER_GUARDED = ("/grpc.health.v1.", "/grpc.reflection.")
"""Services that are asked how things stand: a breaker would hide the answer."""


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """How one method is guarded.

    Attributes:
        method: the method's path.
        breaker: its circuit, shared with every channel to the same dependency.
        classify: what the end of one of its calls says.
        fallback: what answers in its place, if anything.
        idempotent: whether its server honors an idempotency key.
    """

    method: str
    breaker: CircuitBreaker
    classify: Classify
    fallback: CallFallback | None
    idempotent: bool


class Policies:
    """The policies of one channel's methods, found by selector and kept.

    Args:
        settings: the same for every method, or by selector; None for the registry's own.
        dependency: what tells this deployment of the services apart from another.
        registry: where the breakers live.
        fallbacks: fallbacks by selector.
        classify: what the ends of calls mean, for all methods or by selector.
        idempotent: selectors of the methods whose server honors an idempotency key.
        sync: whether they are for a sync channel.

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
        sync: bool,
    ) -> None:
        self._settings = _settings_by_selector(settings)
        self._prefix = _checked_dependency(dependency)
        self._registry = default_registry() if registry is None else registry
        self._classify = _classify_by_selector(classify)
        self._idempotent = selected("idempotent", idempotent)
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
        self._known: dict[str, MethodPolicy | None] = {}

    def of(self, method: str) -> MethodPolicy | None:
        """Return how `method` is guarded; None for a method that is not."""
        try:
            return self._known[method]
        except KeyError:
            pass
        try:
            policy = self._make(method)
        except Exception:
            # A registry of the user's own may fail. The call must not.
            logger.exception("no guard for %s: its settings could not be had", method)
            return None
        # Two threads may both come here; the registry gives both the same breaker.
        self._known[method] = policy
        return policy

    def _guarded(self, method: str) -> bool:
        return not method.startswith(NEVER_GUARDED) and self._settings.find(method) is not None

    def _make(self, method: str) -> MethodPolicy | None:
        if not self._guarded(method):
            return None
        settings = self._settings.find(method)
        return MethodPolicy(
            method=method,
            breaker=self._registry.get(
                self._prefix + method, settings if isinstance(settings, BreakerSettings) else None
            ),
            classify=self._classify.find(method) or self._default_classify,
            fallback=self._fallbacks.find(method),
            idempotent=self._idempotent.find(method) is True,
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
        if function is not None and not callable(function):
            raise SettingsError(
                f"classify: {selector!r}: {function!r} is neither; accepted are a Classification "
                "and a function of a CallEnd that returns an Outcome"
            )
    return Selectors(
        "classify", {key: value for key, value in by_selector.items() if value is not None}
    )


def _checked_dependency(dependency: object) -> str:
    if dependency is None:
        return ""
    if not isinstance(dependency, str) or not re.fullmatch(r"[!-~]+", dependency):
        raise SettingsError(
            f"dependency: {dependency!r} is not a name; accepted are visible ASCII characters "
            "without spaces, for example 'payments-eu'"
        )
    return dependency
