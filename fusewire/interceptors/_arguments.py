"""What users give to guards, checked and by selector; a message names what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast, get_args

import grpc
import grpc.aio

from fusewire.breaker import PRESETS, BreakerSettings
from fusewire.breaker.functions import is_plain_function
from fusewire.errors import SettingsError
from fusewire.interceptors._classification import Classify
from fusewire.interceptors._selectors import EVERYTHING, Selectors

SettingsBySelector: TypeAlias = BreakerSettings | Mapping[str, BreakerSettings | None] | None
"""Settings of all breakers, or by selector; None in their place leaves methods unguarded."""

ClassifyBySelector: TypeAlias = Classify | Mapping[str, Classify] | None
"""What the ends of calls say, for all methods or by selector."""

Streams: TypeAlias = Literal["end", "first_message", "total_time"]
"""When a call whose response is a stream is settled, and what its time is."""

StreamsBySelector: TypeAlias = Streams | Mapping[str, Streams]
"""The same for all methods, or by selector."""

BreakerPer: TypeAlias = Literal["method", "service"]
"""What has a breaker of its own."""


class RegistrysOwn:
    """Stands for the settings that a registry gives by itself."""


def settings_by_selector(
    settings: SettingsBySelector,
) -> Selectors[BreakerSettings | RegistrysOwn | None]:
    """Return the settings of breakers by selector.

    Raises:
        SettingsError: something of it cannot be right.
    """
    if settings is None:
        return Selectors("settings", {EVERYTHING: RegistrysOwn()})
    if isinstance(settings, BreakerSettings):
        return Selectors("settings", {EVERYTHING: settings})
    if not isinstance(settings, Mapping):
        raise SettingsError(_no_settings("settings", settings))
    wrong = [
        _no_settings(f"settings of {selector!r}", value)
        for selector, value in cast("Mapping[str, object]", settings).items()
        if value is not None and not isinstance(value, BreakerSettings)
    ]
    if wrong:
        raise SettingsError("; ".join(wrong))
    return Selectors("settings", settings)


def _no_settings(where: str, given: object) -> str:
    text = f"{where} must be BreakerSettings"
    if where == "settings":
        text += " or a mapping from selectors to BreakerSettings or None"
    else:
        text += " or None, which leaves the methods unguarded"
    text += f", got {given!r}"
    if isinstance(given, str) and given in PRESETS:
        return f"{text}; give fusewire.breaker.PRESETS[{given!r}]"
    if isinstance(given, Mapping):
        return f"{text}; give BreakerSettings(**{{...}}) of it"
    if isinstance(given, grpc.Channel | grpc.aio.Channel):
        return f"{text}; interceptors are made first, and given to the channel's constructor"
    return text


def classify_by_selector(classify: ClassifyBySelector) -> Selectors[Classify]:
    """Return what decides on the ends of calls, by selector.

    Raises:
        SettingsError: something of it cannot be right.
    """
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


def streams_by_selector(streams: object) -> Selectors[Streams]:
    """Return when streams are settled, by selector.

    Raises:
        SettingsError: something of it cannot be right.
    """
    by_selector = streams if isinstance(streams, Mapping) else {EVERYTHING: streams}
    return Selectors(
        "streams",
        {
            selector: checked_choice("streams", choice, Streams)
            for selector, choice in by_selector.items()
        },
    )


def checked_choice(setting: str, choice: object, choices: Any) -> Any:
    """Return `choice` if it is one of a literal type's `choices`.

    Raises:
        SettingsError: something of it cannot be right.
    """
    accepted = get_args(choices)
    if choice not in accepted:
        raise SettingsError(
            f"{setting}: {choice!r} is none of them; accepted are "
            + " and ".join(map(repr, accepted))
        )
    return choice


def checked_dependency(dependency: object) -> str:
    """Return the name of a dependency, empty for None.

    Raises:
        SettingsError: something of it cannot be right.
    """
    if dependency is None:
        return ""
    if not isinstance(dependency, str) or not re.fullmatch(r"[!-~]+", dependency):
        raise SettingsError(
            f"dependency: {dependency!r} is not a name; accepted are visible ASCII characters "
            "without spaces, for example 'payments-eu'"
        )
    return dependency
