"""When a circuit opens, for how long, and how it closes again: validated when made."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from fusewire.breaker.functions import is_plain_function
from fusewire.breaker.states import Outcome  # noqa: TC001 - as above
from fusewire.errors import SettingsError

logger = logging.getLogger(__name__)

MAX_LIKELY_SECONDS = 3600.0
"""A longer time is taken, and warned of: it looks like milliseconds."""

_LIKE_MILLISECONDS = (
    "recovery_timeout",
    "slow_call_duration",
    "max_wait",
    "probe_lease",
    "ramp_duration",
)

DEFAULT_MAX_OPEN_TIME = 300.0
"""Seconds that a circuit stays open at most, unless settings say otherwise: a server's hint or a
growing open time must not keep a recovered dependency out of use for much longer than an outage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """How a circuit breaker behaves. The same words are used in code, files and the registry.

    Any criterion that is met opens the circuit; ``None`` switches one off.

    Attributes:
        failure_threshold: failures in a row that open the circuit.
        recovery_timeout: seconds that the circuit stays open before it lets probes through.
        half_open_max_calls: probes in flight at most, and successful ones needed to close it.
        expected_exceptions: exceptions that count as failures. Others say nothing about the
            dependency. Cancellation does not count, whatever is named here, except as `max_wait`
            says. An exception group is judged by what is in it.
        ignored_exceptions: exceptions that say nothing about the dependency, though expected.
        classify_exception: asked first about an exception; ``None`` leaves it to the two before.
        classify_result: asked about a result, which is a success otherwise.
        window_calls: the rates are taken over this many calls, the latest.
        window_seconds: the rates are taken over this many seconds, the latest, in twentieths.
        minimum_calls: calls in the window before a rate can open the circuit.
        failure_rate_threshold: share of failures in the window, above 0 and up to 1, that opens it.
        slow_call_rate_threshold: share of slow calls in the window that opens it. While it is set,
            a probe that is slow is taken as failed.
        slow_call_duration: seconds; a call that takes longer is slow.
        max_wait: seconds; a call that is cancelled after so long is a failure, because
            ``asyncio.wait_for`` around a call shows a dependency that hangs as a cancellation.
            ``None``: never. For a stream it is the time that its reader waits for one item.
        open_on_hanging: count calls that still run past `slow_call_duration` as slow already.
        probe_lease: seconds after which the place of a probe that was never settled is taken back,
            and a hanging call is no longer counted.
        recovery_timeout_growth: the open time is multiplied by this each time a probe fails.
        recovery_timeout_max: seconds that the circuit stays open at most, also when the dependency
            asks for more; ``None`` is 300 s, or `recovery_timeout` if that is longer.
        recovery_timeout_jitter: share of the open time, from 0 and below 1, that chance takes off.
        ramp_duration: seconds after closing in which the share of calls admitted grows from none to
            all; ``None`` admits all at once.

    Raises:
        SettingsError: a value cannot be right; the message names it and what would be accepted.
    """

    failure_threshold: int | None = 5
    recovery_timeout: float = 30.0
    half_open_max_calls: int = 3
    expected_exceptions: tuple[type[BaseException], ...] = (Exception,)
    ignored_exceptions: tuple[type[BaseException], ...] = ()
    classify_exception: Callable[[BaseException], Outcome | None] | None = None
    classify_result: Callable[[Any], Outcome] | None = None
    window_calls: int | None = None
    window_seconds: float | None = None
    minimum_calls: int = 10
    failure_rate_threshold: float | None = None
    slow_call_rate_threshold: float | None = None
    slow_call_duration: float | None = None
    max_wait: float | None = None
    open_on_hanging: bool = False
    probe_lease: float = 60.0
    recovery_timeout_growth: float = 1.0
    recovery_timeout_max: float | None = None
    recovery_timeout_jitter: float = 0.0
    ramp_duration: float | None = None

    def __new__(cls, *_: object, **settings: object) -> Self:
        """Refuse a setting that there is not, and name the nearest one."""
        for setting in settings:
            if setting not in cls.__dataclass_fields__:
                nearest = difflib.get_close_matches(setting, cls.__dataclass_fields__, 1)
                meant = f"; did you mean {nearest[0]}?" if nearest else ""
                raise SettingsError(f"there is no setting {setting!r}{meant}")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        """Refuse what cannot be right, alone or together."""
        for setting, (fits, accepted) in _RULES.items():
            value = getattr(self, setting)
            if value is None and setting in _OPTIONAL:
                continue
            if not fits(value):
                also = ", or None" if setting in _OPTIONAL else ""
                raise SettingsError(
                    f"{setting} must be {accepted}{also}, got {value!r}{_hint(value)}"
                )
        for broken, setting, accepted in self._conflicts():
            if broken:
                raise SettingsError(f"{setting} must be {accepted}, got {getattr(self, setting)!r}")
        for setting in _LIKE_MILLISECONDS:
            seconds = getattr(self, setting)
            if seconds is not None and seconds > MAX_LIKELY_SECONDS:
                _warn_of_milliseconds(setting, seconds)

    def _conflicts(self) -> Iterator[tuple[bool, str, str]]:
        calls, slow = self.window_calls, self.slow_call_duration
        no_window = calls is None and self.window_seconds is None
        yield (
            calls is not None and self.window_seconds is not None,
            "window_seconds",
            "None while window_calls is set",
        )
        yield (
            calls is not None and self.minimum_calls > calls,
            "minimum_calls",
            f"at most window_calls ({calls})",
        )
        rates = (self.failure_rate_threshold, self.slow_call_rate_threshold)
        yield (
            self.failure_threshold is None and rates == (None, None),
            "failure_threshold",
            "a number while no rate has a threshold, because nothing would open the circuit",
        )
        for setting in ("failure_rate_threshold", "slow_call_rate_threshold"):
            yield (
                no_window and getattr(self, setting) is not None,
                setting,
                "None, or window_calls or window_seconds be set",
            )
        yield (
            self.slow_call_rate_threshold is not None and slow is None,
            "slow_call_duration",
            "set while slow_call_rate_threshold is",
        )
        yield (
            self.recovery_timeout_max is not None
            and self.recovery_timeout_max < self.recovery_timeout,
            "recovery_timeout_max",
            f"at least recovery_timeout ({self.recovery_timeout})",
        )
        yield (
            self.open_on_hanging and self.slow_call_rate_threshold is None,
            "open_on_hanging",
            "False, or slow_call_rate_threshold be set",
        )
        yield (
            self.open_on_hanging and slow is not None and self.probe_lease <= slow,
            "probe_lease",
            f"above slow_call_duration ({slow}) while open_on_hanging is set",
        )

    @property
    def max_open_time(self) -> float:
        """Seconds that the circuit stays open at most."""
        if self.recovery_timeout_max is not None:
            return self.recovery_timeout_max
        return max(self.recovery_timeout, DEFAULT_MAX_OPEN_TIME)


def check_settings(value: object, where: str = "settings") -> BreakerSettings:
    """Return `value` if it is settings; `where` says where it was given.

    Raises:
        SettingsError: it is not.
    """
    if not isinstance(value, BreakerSettings):
        hint = ""
        if isinstance(value, str):
            hint = "; a preset is had by its name from fusewire.breaker.PRESETS"
        elif isinstance(value, Mapping):
            hint = "; write BreakerSettings(**settings)"
        raise SettingsError(f"{where} must be BreakerSettings, got {value!r}{hint}")
    return value


def check_seconds(setting: str, value: object) -> None:
    """Refuse `value` unless it is a number of seconds; `setting` names it.

    Raises:
        SettingsError: it is no finite number above 0.
    """
    if not is_seconds(value):
        raise SettingsError(f"{setting} must be {_SECONDS}, got {value!r}{_hint(value)}")


def _hint(value: object) -> str:
    """Say how to write what is not a number of seconds, but was meant for one."""
    if isinstance(value, timedelta):
        return f": write {value.total_seconds()!r}, its total_seconds()"
    return ""


@functools.cache
def _warn_of_milliseconds(setting: str, seconds: float) -> None:
    """Log it once for each value: settings may be made time and again."""
    logger.warning(
        "%s is %r seconds, which is more than an hour: if milliseconds were meant, write %r",
        setting,
        seconds,
        seconds / 1000,
    )


def describe_differences(settings: BreakerSettings, others: BreakerSettings) -> str:
    """Say in which fields two settings differ: ``failure_threshold is 5, not 3``."""
    differ = (
        (field.name, getattr(settings, field.name), getattr(others, field.name))
        for field in dataclasses.fields(settings)
    )
    return "; ".join(
        f"{name} is {value!r}, not {other!r}" for name, value, other in differ if value != other
    )


def _is_number(value: object) -> bool:
    # bool is an int, and True as a figure is a slip of the pen.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_seconds(value: Any) -> bool:
    """Tell whether `value` is a finite number above 0."""
    return _is_number(value) and value > 0


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 < value <= 1


def _is_jitter(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


def _is_growth(value: Any) -> bool:
    return _is_number(value) and value >= 1


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


def _are_exceptions(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in value
    )


_COUNT = "a whole number of at least 1"
_SECONDS = "a finite number of seconds above 0"
_SHARE = "a fraction above 0 and up to 1"
_EXCEPTIONS = "a tuple of exception classes"
_FUNCTION = "a plain function, which nobody has to await"

_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "failure_threshold": (_is_count, _COUNT),
    "recovery_timeout": (is_seconds, _SECONDS),
    "half_open_max_calls": (_is_count, _COUNT),
    "expected_exceptions": (_are_exceptions, _EXCEPTIONS),
    "ignored_exceptions": (_are_exceptions, _EXCEPTIONS),
    "classify_exception": (is_plain_function, _FUNCTION),
    "classify_result": (is_plain_function, _FUNCTION),
    "window_calls": (_is_count, _COUNT),
    "window_seconds": (is_seconds, _SECONDS),
    "minimum_calls": (_is_count, _COUNT),
    "failure_rate_threshold": (_is_share, _SHARE),
    "slow_call_rate_threshold": (_is_share, _SHARE),
    "slow_call_duration": (is_seconds, _SECONDS),
    "max_wait": (is_seconds, _SECONDS),
    "open_on_hanging": (_is_switch, "True or False"),
    "probe_lease": (is_seconds, _SECONDS),
    "recovery_timeout_growth": (_is_growth, "a finite number of at least 1"),
    "recovery_timeout_max": (is_seconds, _SECONDS),
    "recovery_timeout_jitter": (_is_jitter, "a fraction from 0 and below 1"),
    "ramp_duration": (is_seconds, _SECONDS),
}

_OPTIONAL = frozenset(
    {
        "failure_threshold",
        "classify_exception",
        "classify_result",
        "window_calls",
        "window_seconds",
        "failure_rate_threshold",
        "slow_call_rate_threshold",
        "slow_call_duration",
        "max_wait",
        "recovery_timeout_max",
        "ramp_duration",
    }
)
