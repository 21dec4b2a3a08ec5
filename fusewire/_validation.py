"""Checks of what users give: one place, and one form of message.

A message reads "<name> must be <what is accepted>, got <value>", and then what to write instead,
where that can be said. A :class:`Rule` holds what is accepted; :func:`check` applies it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

T = TypeVar("T")

_MOST_SHOWN = 200
"""Characters of a wrong value that a message shows at most."""

_SHORTEST, _LONGEST = 0.001, 2**31 / 1000
"""Seconds of a delay: AMQP counts milliseconds in 32 bits."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting accepts.

    Attributes:
        accepted: what is accepted, as a message says it after "must be".
        fits: whether a value is accepted.
        choices: the accepted values, where they are few: a message names the one that was meant.
    """

    accepted: str
    fits: Callable[[Any], bool]
    choices: tuple[str, ...] = ()

    @property
    def or_none(self) -> Rule:
        """The same rule for a setting that may be left out."""
        return Rule(
            f"{self.accepted}, or None",
            lambda value: value is None or self.fits(value),
            self.choices,
        )


def check(name: str, value: T, rule: Rule) -> T:
    """Return `value` if `rule` accepts it.

    Args:
        name: the setting's name, with the selector or key it was given for: ``lanes['eu']``.
        value: what was given.
        rule: what is accepted.

    Raises:
        SettingsError: `rule` does not accept it.
    """
    if not rule.fits(value):
        raise invalid(name, rule.accepted, value, _hint(value, rule.choices))
    return value


def invalid(name: str, accepted: str, value: object, hint: str = "") -> SettingsError:
    """Make the error that says what `name` must be, what it is, and what to do."""
    return SettingsError(f"{name} must be {accepted}, got {shown(value)}{_then(hint)}")


def shown(value: object) -> str:
    """Return how messages show `value`: its ``repr``, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def nearest(name: object, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the one of the `known` names that `name` is most like, None if it is like none."""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=cutoff)
    return near[0] if near else None


def check_fields(cls: type, given: Mapping[str, object], fields: Collection[str]) -> None:
    """Refuse a setting that `cls` does not have, and name the nearest one.

    Raises:
        SettingsError: one of `given` is none of the `fields`.
    """
    for name in given:
        if name not in fields:
            near = nearest(name, fields)
            hint = f"did you mean {near}?" if near else ""
            raise SettingsError(f"{cls.__name__} has no setting {name!r}{_then(hint)}")


def check_text(name: str, value: object) -> str:
    """Return `value` if it is a text that can be stored and sent.

    Raises:
        SettingsError: it is no string, is empty, or has characters that UTF-8 cannot encode.
    """
    if not isinstance(value, str) or not value:
        raise invalid(name, "a non-empty string", value)
    if not _is_storable(value):
        raise invalid(
            name,
            "a string that UTF-8 can encode",
            value,
            "it holds half a surrogate pair, usually from bytes that were decoded with "
            "errors='surrogateescape'",
        )
    return value


def _is_storable(text: str) -> bool:
    """Return whether UTF-8 can encode `text`, as brokers and gRPC need."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_callable(name: str, function: object, *arguments: str) -> None:
    """Refuse what cannot be called with `arguments`, or does nothing when it is.

    Args:
        name: the setting's name.
        function: what was given.
        arguments: what it will be called with, each in words.

    Raises:
        SettingsError: calling it would fail, or would not do its work.
    """
    accepted = f"a function that takes {' and '.join(arguments)}"
    if not callable(function):
        raise invalid(name, accepted, function, _hint(function))
    given = f"{name} must be {accepted}, got {name_of(function)}"
    if isinstance(function, type):
        raise SettingsError(f"{given}, a class: calling it only makes an object")
    if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
        raise SettingsError(
            f"{given}, a generator function: calling it runs none of its code; remove the yield"
        )
    if (problem := signature_problem(function, len(arguments))) is not None:
        raise SettingsError(f"{given}, which cannot be called so: {problem}")


def check_plain_function(name: str, function: object, *arguments: str) -> None:
    """Refuse what :func:`check_callable` does, and coroutine functions, which nobody would await.

    Raises:
        SettingsError: calling it would fail, or would not do its work.
    """
    check_callable(name, function, *arguments)
    if is_coroutine_function(function):
        raise SettingsError(
            f"{name} must be a plain function, got {name_of(function)}, a coroutine function: "
            "nobody awaits what it returns"
        )


def signature_problem(function: Callable[..., object], count: int) -> str | None:
    """Return why `function` cannot be called with `count` arguments, None if it can."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function in C that does not say
        return None
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        return str(error)
    return None


def name_of(function: object) -> str:
    """Return what people call `function`, for log lines and errors."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        function, name = type(function), type(function).__qualname__
    # A method in C has None.
    return f"{getattr(function, '__module__', '?') or 'builtins'}.{name}"


def is_coroutine_function(function: object) -> bool:
    """Return whether calling `function` gives a coroutine, also where it is an object."""
    return _is(inspect.iscoroutinefunction, function)


def is_plain_function(value: object) -> bool:
    """Return whether `value` can be called and has done its work when it returns.

    Not a coroutine function, nor one that makes a generator: called, it does nothing yet.
    """
    return callable(value) and not any(_is(kind, value) for kind in _KINDS_THAT_WAIT)


def is_seconds(value: object) -> bool:
    """Return whether `value` is a finite number above 0."""
    return _is_number(value) and value > 0  # type: ignore[operator] # a number, then


_KINDS_THAT_WAIT = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


def _is(kind: Callable[[Any], bool], function: object) -> bool:
    # An object's class may have made it one of the kind.
    return kind(function) or kind(type(function).__call__)


def _is_number(value: object) -> bool:
    # bool is an int, and True as a figure is a slip.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_exceptions(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in value
    )


def _are_delays(value: object) -> bool:
    if not isinstance(value, tuple | list) or not value:
        return False
    if not all(_is_number(delay) and _SHORTEST <= delay <= _LONGEST for delay in value):
        return False
    milliseconds = [round(delay * 1000) for delay in value]
    return milliseconds == sorted(set(milliseconds))


def _hint(value: object, choices: tuple[str, ...] = ()) -> str:
    if isinstance(value, timedelta):
        return f"write {value.total_seconds()!r}, its total_seconds()"
    near = nearest(value, choices) if isinstance(value, str) else None
    return f"did you mean {near!r}?" if near else ""


def _then(hint: str) -> str:
    return f"; {hint}" if hint else ""


COUNT = Rule("a whole number of at least 1", lambda value: _is_whole(value) and value >= 1)
SECONDS = Rule("a finite number of seconds above 0", is_seconds)
SECONDS_OR_ZERO = Rule(
    "a finite number of seconds of at least 0", lambda value: _is_number(value) and value >= 0
)
RATE = Rule("a finite number of messages per second above 0", is_seconds)
WEIGHT = Rule("a finite number above 0", is_seconds)
SHARE = Rule("a fraction above 0 and up to 1", lambda value: _is_number(value) and 0 < value <= 1)
JITTER = Rule("a fraction from 0 and below 1", lambda value: _is_number(value) and 0 <= value < 1)
GROWTH = Rule("a finite number of at least 1", lambda value: _is_number(value) and value >= 1)
DELAYS = Rule(
    "growing seconds from 0.001 to 2147483, at least one and no two equal in milliseconds",
    _are_delays,
)
EXCEPTIONS = Rule("a tuple of exception classes", _are_exceptions)
PLAIN_FUNCTION = Rule("a plain function, which nobody has to await", is_plain_function)
TEXT = Rule("a string", lambda value: isinstance(value, str))
SWITCH = Rule("True or False", lambda value: isinstance(value, bool))


def count_up_to(most: int, because: str) -> Rule:
    """Accept whole numbers from 1 to `most`; `because` says whose limit that is."""
    return Rule(
        f"a whole number from 1 to {most}, {because}",
        lambda value: _is_whole(value) and 1 <= value <= most,
    )


def number_from(least: float, most: float) -> Rule:
    """Accept numbers from `least` to `most`."""
    return Rule(
        f"a number from {least:g} to {most:g}",
        lambda value: _is_number(value) and least <= value <= most,
    )


def one_of(*choices: str) -> Rule:
    """Accept these strings only."""
    *first, last = map(repr, choices)
    accepted = f"{', '.join(first)} or {last}" if first else last
    return Rule(accepted, lambda value: isinstance(value, str) and value in choices, choices)


def instance_of(kind: type) -> Rule:
    """Accept objects of a class."""
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return Rule(f"{article} {kind.__name__}", lambda value: isinstance(value, kind))
