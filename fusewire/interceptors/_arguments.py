"""The arguments of guards: their types, and their values by selector, once they are checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast, get_args

import grpc
import grpc.aio

from fusewire._validation import Rule, check, invalid, is_plain_function, one_of
from fusewire.breaker import BreakerSettings
from fusewire.breaker.internal import settings_hint
from fusewire.errors import SettingsError
from fusewire.interceptors._classification import Classify
from fusewire.interceptors._fallback import CallFallback, Fallback, as_call_fallback
from fusewire.interceptors._selectors import EVERYTHING, Selectors, check_selector, place

SettingsBySelector: TypeAlias = BreakerSettings | Mapping[str, BreakerSettings | None] | None
"""Settings of all breakers, or by selector; None in their place leaves methods unguarded."""

ClassifyBySelector: TypeAlias = Classify | Mapping[str, Classify] | None
"""What the ends of calls mean, for all methods or by selector."""

Streams: TypeAlias = Literal["end", "first_message", "total_time"]
"""When a call whose response is a stream is settled, and what its time is."""

StreamsBySelector: TypeAlias = Streams | Mapping[str, Streams]
"""The same for all methods, or by selector."""

BreakerPer: TypeAlias = Literal["method", "service"]
"""What has a breaker of its own."""

_CLASSIFY = Rule(
    "a Classification or a plain function from a CallEnd to an Outcome", is_plain_function
).or_none


MethodSettings: TypeAlias = BreakerSettings | Literal["registry"] | None
"""Settings of one method's breaker: given, or the registry's own; None for no breaker."""


def settings_by_selector(settings: SettingsBySelector) -> Selectors[MethodSettings]:
    """Return the settings of breakers by selector.

    Raises:
        SettingsError: a value is wrong; the message names it.
    """
    if settings is None:
        return Selectors("settings", {EVERYTHING: "registry"})
    if isinstance(settings, BreakerSettings):
        return Selectors("settings", {EVERYTHING: settings})
    if not isinstance(settings, Mapping):
        raise _no_settings("settings", _SETTINGS_OR_MAPPING, settings)
    wrong = [
        str(_no_settings(f"settings[{selector!r}]", "BreakerSettings or None", value))
        for selector, value in cast("Mapping[str, object]", settings).items()
        if value is not None and not isinstance(value, BreakerSettings)
    ]
    if wrong:
        raise SettingsError("; ".join(wrong))
    return Selectors("settings", settings)


_SETTINGS_OR_MAPPING = "BreakerSettings or a mapping from selectors to BreakerSettings or None"


def _no_settings(name: str, accepted: str, given: object) -> SettingsError:
    hint = settings_hint(given)
    if isinstance(given, grpc.Channel | grpc.aio.Channel):
        hint = "make the interceptors first, and give them to the channel's constructor"
    return invalid(name, accepted, given, hint)


def classify_by_selector(classify: ClassifyBySelector) -> Selectors[Classify]:
    """Return what classifies the ends of calls, by selector.

    Raises:
        SettingsError: a value is wrong; the message names it.
    """
    by_selector = _checked("classify", classify, _CLASSIFY)
    return Selectors(
        "classify", {key: value for key, value in by_selector.items() if value is not None}
    )


def fallbacks_by_selector(
    fallbacks: Mapping[str, Fallback | None], *, sync: bool
) -> Selectors[CallFallback | None]:
    """Return fallbacks by selector, for a sync channel or an asyncio one.

    Raises:
        SettingsError: a value is wrong; the message names it.
    """
    return Selectors(
        "fallbacks",
        {
            check_selector("fallbacks", selector): None
            if fallback is None
            else as_call_fallback(selector, fallback, sync=sync)
            for selector, fallback in fallbacks.items()
        },
    )


def streams_by_selector(streams: object) -> Selectors[Streams]:
    """Return when streams are settled, by selector.

    Raises:
        SettingsError: a value is wrong; the message names it.
    """
    return Selectors("streams", _checked("streams", streams, one_of(*get_args(Streams))))


def _checked(setting: str, given: Any, rule: Rule) -> dict[str, Any]:
    """Return values by selector. A single one is for everything."""
    if not isinstance(given, Mapping):
        return {EVERYTHING: check(setting, given, rule)}
    return {
        selector: check(place(setting, selector), value, rule) for selector, value in given.items()
    }


def check_choice(name: str, choice: Any, choices: Any) -> Any:
    """Return `choice` if it is one of a literal type's `choices`.

    Raises:
        SettingsError: it is none of them.
    """
    return check(name, choice, one_of(*get_args(choices)))


def check_dependency(dependency: object) -> str:
    """Return the name of a dependency, empty for None.

    Raises:
        SettingsError: a value is wrong; the message names it.
    """
    if dependency is None:
        return ""
    if not isinstance(dependency, str) or not re.fullmatch(r"[!-~]+", dependency):
        raise invalid(
            "dependency",
            "a name of visible ASCII characters without spaces, such as 'payments-eu'",
            dependency,
        )
    return dependency
